"""Channels as the API shows and takes them."""

from typing import Final

import marshmallow as ma

from gateway.schemas import fields
from gateway.schemas.base import PageQuery, ReasonSchema, Schema
from shared.contracts.channels import CALLBACK_OUTCOMES, CHANNEL_KINDS, CHANNEL_STATUSES

FIELDS: Final = ("upstream_ref", "order_no", "amount", "fee", "currency", "status", "time")
STATUSES: Final = ("pending", "success", "failed", "refunded")
_SECRET: Final = {"writeOnly": True, "example": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}


class StatementColumnsSchema(Schema):
    """The platform's own names of the columns of a statement, by our names of what stands in them."""

    upstream_ref = fields.Text(length_min=1, length_max=100)
    order_no = fields.Text(length_min=1, length_max=100)
    amount = fields.Text(length_min=1, length_max=100)
    fee = fields.Text(length_min=1, length_max=100)
    currency = fields.Text(length_min=1, length_max=100)
    status = fields.Text(length_min=1, length_max=100)
    time = fields.Text(length_min=1, length_max=100)


class ChannelConfigSchema(Schema):
    """How a channel is spoken to, and how its statements are to be read."""

    base_url = fields.Text(metadata={"format": "uri", "description": "Kind `http`: where it is asked."})
    fee_percent = fields.Text(length_max=10, metadata={"example": "0.6"})
    currency = fields.Currency()
    timezone = fields.Text(length_max=64, metadata={"example": "Asia/Shanghai"})
    columns = fields.Nested(StatementColumnsSchema)
    statuses = fields.Dict(keys=fields.Text(length_min=1, length_max=100), values=fields.Word(STATUSES))
    delimiter = fields.Text(length_min=1, length_max=1)
    date_format = fields.Text(length_min=1, length_max=60, metadata={"example": "%Y-%m-%d %H:%M:%S"})
    decimal_sign = fields.Text(length_min=1, length_max=1)


class ChannelConfigChangeSchema(ChannelConfigSchema):
    """Fields of a configuration, and its secrets, which are sealed and never shown again. Null takes one out."""

    base_url = fields.Text(allow_none=True, metadata={"format": "uri"})
    fee_percent = fields.Text(length_max=10, allow_none=True)
    currency = fields.Currency(allow_none=True)
    timezone = fields.Text(length_max=64, allow_none=True)
    columns = fields.Nested(StatementColumnsSchema, allow_none=True)
    statuses = fields.Dict(
        keys=fields.Text(length_min=1, length_max=100), values=fields.Word(STATUSES), allow_none=True
    )
    delimiter = fields.Text(length_min=1, length_max=1, allow_none=True)
    date_format = fields.Text(length_min=1, length_max=60, allow_none=True)
    decimal_sign = fields.Text(length_min=1, length_max=1, allow_none=True)
    callback_secrets = fields.List(
        fields.Text(length_max=200), allow_none=True, metadata=_SECRET | {"example": [_SECRET["example"]]}
    )
    query_secret = fields.Text(length_max=200, allow_none=True, metadata=_SECRET)
    api_key = fields.Text(length_max=255, allow_none=True, metadata={"writeOnly": True})


class ChannelSchema(Schema):
    """A payment platform. `credentials` names the secrets that it has."""

    code = fields.Text(required=True)
    name = fields.Text(required=True)
    kind = fields.Word(CHANNEL_KINDS, required=True)
    config = fields.Nested(ChannelConfigSchema, required=True)
    credentials = fields.List(fields.Text(), required=True)
    status = fields.Word(CHANNEL_STATUSES, required=True)
    version = fields.Integer(required=True, at_least=1)
    created_at = fields.Timestamp(required=True)
    updated_at = fields.Timestamp(required=True)


class NewChannelSchema(Schema):
    """A payment platform to register. Its `code` is what stands in orders' `channel`."""

    code = fields.Identifier(required=True, metadata={"example": "alipay"})
    name = fields.Text(required=True, length_min=1, length_max=100)
    kind = fields.Word(CHANNEL_KINDS, required=True)
    config = fields.Nested(ChannelConfigChangeSchema)
    status = fields.Word(CHANNEL_STATUSES)
    reason = fields.Reason(required=False)


class ChannelChangeSchema(ReasonSchema):
    """What to change of a channel, and why. Of `config`, what is not named stays."""

    name = fields.Text(length_min=1, length_max=100)
    config = fields.Nested(ChannelConfigChangeSchema)
    status = fields.Word(CHANNEL_STATUSES)


class ChannelQuery(PageQuery):
    """Which page."""


class PaymentSchema(Schema):
    """A payment as its platform knows it. Further fields are passed over; `status` may be one of the platform's words.

    `time` is when the payment came into this status; without it, when the callback was signed.
    """

    class Meta:
        unknown = ma.INCLUDE

    order_no = fields.Identifier(required=True)
    upstream_ref = fields.Text(required=True, length_min=1, length_max=128)
    status = fields.Text(required=True, length_min=1, length_max=100, metadata={"example": "success"})
    amount = fields.Money(required=True)
    currency = fields.Currency(required=True)
    fee = fields.Money(allow_none=True)
    time = fields.Timestamp(allow_none=True)


class CallbackSchema(Schema):
    """What a callback came to. One that is `ignored` names no order's payment."""

    outcome = fields.Word(CALLBACK_OUTCOMES, required=True)
    order_no = fields.Text(required=True, allow_none=True)
    upstream_ref = fields.Text(required=True, allow_none=True)


class UpstreamAnswerSchema(Schema):
    """What a platform answered when it was asked about an order: as it came, its first 16 384 characters."""

    channel = fields.Text(required=True)
    asked_for = fields.Text(required=True)
    status_code = fields.Integer(required=True, allow_none=True, at_least=100, at_most=999)
    body = fields.Text(required=True, length_max=16_384)
    fault = fields.Text(required=True, allow_none=True)
    request_id = fields.Text(required=True)
    time = fields.Timestamp(required=True)
