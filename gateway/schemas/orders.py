"""Orders as the API shows and takes them."""

from typing import Final

from gateway.schemas import fields
from gateway.schemas.base import PageQuery, Schema, TimeRangeQuery
from gateway.schemas.ledger import EntrySchema
from gateway.schemas.mismatches import MismatchSchema
from gateway.schemas.statements import UPSTREAM_REF_LENGTH_MAX, UpstreamRecordSchema

KINDS: Final = ("recharge", "purchase", "renewal", "payment", "withdraw", "paid_reset")
STATUSES: Final = ("pending", "failed", "settled", "partially_refunded", "refunded")
ACTS: Final = ("create", "settle", "fail", "refund", "correct")
FEE_SOURCES: Final = ("channel", "parameter")


class NewOrderSchema(Schema):
    """An order to make; without `user_id` the merchant's own, without `order_no` one is made.

    `amount` is positive whichever way the money goes.
    """

    order_no = fields.Identifier(allow_none=True, metadata={"example": "P-2026-0001"})
    merchant_id = fields.Identifier(required=True)
    user_id = fields.Identifier(allow_none=True)
    kind = fields.Word(KINDS, required=True)
    amount = fields.Money(required=True)
    currency = fields.Currency(required=True)
    channel = fields.Identifier(allow_none=True)


class OrderSchema(Schema):
    """An order; `refunded` is what of it was given back."""

    order_no = fields.Text(required=True)
    merchant_id = fields.Text(required=True)
    user_id = fields.Text(required=True, allow_none=True)
    kind = fields.Word(KINDS, required=True)
    amount = fields.Money(required=True)
    currency = fields.Currency(required=True)
    channel = fields.Text(required=True, allow_none=True)
    status = fields.Word(STATUSES, required=True)
    upstream_ref = fields.Text(required=True, allow_none=True)
    fee = fields.Money(required=True)
    refunded = fields.Money(required=True)
    created_at = fields.Timestamp(required=True)
    settled_at = fields.Timestamp(required=True, allow_none=True)


class OrderActSchema(Schema):
    """One thing that was done to an order: what, by whom, when and why."""

    act = fields.Word(ACTS, required=True)
    status_before = fields.Word(STATUSES, required=True, allow_none=True)
    status_after = fields.Word(STATUSES, required=True)
    amount = fields.Money(required=True, allow_none=True, currency_field=None)
    upstream_ref = fields.Text(required=True, allow_none=True)
    reason = fields.Text(required=True, allow_none=True)
    actor_id = fields.Text(required=True)
    actor_name = fields.Text(required=True)
    actor_type = fields.Text(required=True)
    request_id = fields.Text(required=True)
    time = fields.Timestamp(required=True)


class OrderDetailSchema(OrderSchema):
    """An order with its rows of the balance log and its history, each newest first and at most 200.

    `fee_percent` is the rate that the order was made with, and `fee_source` says where it comes from.
    """

    fee_percent = fields.Text(required=True, metadata={"example": "0.6"})
    fee_source = fields.Word(FEE_SOURCES, required=True, allow_none=True)
    entries = fields.List(fields.Nested(EntrySchema), required=True)
    history = fields.List(fields.Nested(OrderActSchema), required=True)
    upstream_records = fields.List(fields.Nested(UpstreamRecordSchema), required=True)
    mismatches = fields.List(fields.Nested(MismatchSchema), required=True)


class SettlementSchema(Schema):
    """The payment platform's own number of the order, if there is one."""

    upstream_ref = fields.Text(length_min=1, length_max=UPSTREAM_REF_LENGTH_MAX, allow_none=True)


class FailureSchema(Schema):
    """Why the order came to nothing, if anybody knows."""

    reason = fields.Text(allow_none=True)


class RefundSchema(Schema):
    """What is given back, and why; without `amount` all that is left."""

    amount = fields.Money(allow_none=True)
    reason = fields.Reason()


class OrderQuery(PageQuery, TimeRangeQuery):
    """Which orders. `from` and `to` are of `created_at`, amounts in each order's own currency."""

    kind = fields.Word(KINDS)
    status = fields.Word(STATUSES)
    merchant_id = fields.Identifier()
    user_id = fields.Identifier()
    channel = fields.Identifier()
    currency = fields.Currency()
    min_amount = fields.Money(currency_field=None)
    max_amount = fields.Money(currency_field=None)
