"""Telegram's bindings, rules and notifications as the API shows and takes them."""

from typing import Any

from gateway.schemas import fields
from gateway.schemas.base import PageQuery, Schema
from shared.contracts.telegram import (
    BINDING_STATUSES,
    LANGUAGES,
    NOTIFICATION_STATUSES,
    NOTIFICATION_TYPES,
)

TITLE_LENGTH_MAX = 128


class ChatId(fields.Text):
    """A chat's id as Telegram writes it: a string, or the whole number that Telegram's own tools show."""

    def __init__(self, **kwargs: Any) -> None:
        metadata = {"example": "-1001234567890"}
        super().__init__(length_min=1, length_max=20, **kwargs, metadata=metadata)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return super()._deserialize(str(value) if is_number else value, attr, data, **kwargs)


class BindingSchema(Schema):
    """A merchant bound to a group. `status_reason` says why Telegram had it disabled."""

    id = fields.Text(required=True)
    merchant_id = fields.Text(required=True)
    chat_id = fields.Text(required=True)
    title = fields.Text(required=True)
    status = fields.Word(BINDING_STATUSES, required=True)
    status_reason = fields.Text(required=True, allow_none=True)
    language = fields.Word(LANGUAGES, required=True)
    created_at = fields.Timestamp(required=True)
    updated_at = fields.Timestamp(required=True)


class NewBindingSchema(Schema):
    """A group to bind. Without a title it takes the group's own with the first message."""

    merchant_id = fields.Identifier(required=True)
    chat_id = ChatId(required=True)
    title = fields.Text(length_max=TITLE_LENGTH_MAX, load_default="")
    language = fields.Word(LANGUAGES, load_default="en")


class BindingChangesSchema(Schema):
    """What to change of a binding; what is missing stays."""

    title = fields.Text(length_max=TITLE_LENGTH_MAX)
    language = fields.Word(LANGUAGES)
    status = fields.Word(BINDING_STATUSES)


class BindingQuery(PageQuery):
    """Which bindings."""

    merchant_id = fields.Identifier()
    status = fields.Word(BINDING_STATUSES)


class LargeChangeRuleSchema(Schema):
    """Tell of each balance change of this absolute amount or more, in the change's own currency.

    Without a threshold the parameter `ledger.large_change_threshold` is the threshold.
    """

    enabled = fields.Boolean(required=True)
    threshold = fields.Money(currency_field=None, load_default=None, allow_none=True)


class AdjustmentRuleSchema(Schema):
    """Tell of each balance that the platform's staff adjusts (326, 335, 341, 342), of any amount, and why."""

    enabled = fields.Boolean(required=True)


class DeviceRuleSchema(Schema):
    """Tell when a device of the merchant's cards goes offline, and when it is back: once each."""

    enabled = fields.Boolean(required=True)


class RulesSchema(Schema):
    """What a group is told, by the type of notification. What is not sent of the last two stays as it is."""

    large_change = fields.Nested(LargeChangeRuleSchema, required=True)
    adjustment = fields.Nested(AdjustmentRuleSchema)
    device = fields.Nested(DeviceRuleSchema)


class NotificationSchema(Schema):
    """One message to one group.

    A `failed` one is tried again at `next_attempt_at`; a `dead` or `suppressed` one only when somebody retries it.
    """

    id = fields.Text(required=True)
    binding_id = fields.Text(required=True)
    merchant_id = fields.Text(required=True)
    chat_id = fields.Text(required=True)
    type = fields.Word(NOTIFICATION_TYPES, required=True)
    text = fields.Text(required=True, length_max=4096)
    status = fields.Word(NOTIFICATION_STATUSES, required=True)
    attempts = fields.Integer(required=True)
    last_error = fields.Text(required=True, allow_none=True)
    message_id = fields.Integer(required=True, allow_none=True)
    event_id = fields.Text(required=True, allow_none=True)
    entry_id = fields.Text(required=True, allow_none=True)
    created_at = fields.Timestamp(required=True)
    next_attempt_at = fields.Timestamp(required=True, allow_none=True)
    sent_at = fields.Timestamp(required=True, allow_none=True)


class NotificationQuery(PageQuery):
    """Which notifications."""

    merchant_id = fields.Identifier()
    binding_id = fields.Identifier()
    type = fields.Word(NOTIFICATION_TYPES)
    status = fields.Word(NOTIFICATION_STATUSES)
