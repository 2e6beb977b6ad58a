"""Devices of cards, their heartbeats and their log, as the API shows and takes them."""

from typing import Any

from marshmallow import validate

from gateway.schemas import fields
from gateway.schemas.base import PageQuery, Schema, TimeRangeQuery
from shared.contracts.devices import (
    CONNECTIONS,
    DEVICE_STATUSES,
    HEARTBEAT_OUTCOMES,
    HEARTBEATS_MAX,
    LOG_ROWS_MAX,
    LOG_SOURCES,
    ROW_OUTCOMES,
)

NAME_LENGTH_MAX = 100
PLATFORM_LENGTH_MAX = 50
FINGERPRINT_LENGTH_MAX = 128
WORD_LENGTH_MAX = 40
SETTABLE_STATUSES = ("bound", "blocked")


class DeviceSchema(Schema):
    """A device of a merchant. `connection` is null while it is not bound, and until it is heard of.

    `bound_at`: since when it has been bound to the first of its cards; null while it is on none.
    """

    device_id = fields.Text(required=True)
    merchant_id = fields.Text(required=True)
    name = fields.Text(required=True)
    platform = fields.Text(required=True)
    fingerprint = fields.Text(required=True)
    status = fields.Word(DEVICE_STATUSES, required=True)
    status_reason = fields.Text(required=True, allow_none=True)
    connection = fields.Word(CONNECTIONS, required=True, allow_none=True)
    card_ids = fields.List(fields.Text(), required=True)
    bound_at = fields.Timestamp(required=True, allow_none=True)
    last_seen_at = fields.Timestamp(required=True, allow_none=True)
    created_at = fields.Timestamp(required=True)
    updated_at = fields.Timestamp(required=True)


class BoundDeviceSchema(Schema):
    """A device on a card, and the half-open interval of this binding; without an end it is bound still."""

    device_id = fields.Text(required=True)
    card_id = fields.Text(required=True)
    name = fields.Text(required=True)
    platform = fields.Text(required=True)
    fingerprint = fields.Text(required=True)
    status = fields.Word(DEVICE_STATUSES, required=True)
    connection = fields.Word(CONNECTIONS, required=True, allow_none=True)
    bound_at = fields.Timestamp(required=True)
    unbound_at = fields.Timestamp(required=True, allow_none=True)
    unbound_because = fields.Text(
        required=True, allow_none=True, metadata={"description": "`unbound`, `card_closed` or `card_assigned`."}
    )
    last_seen_at = fields.Timestamp(required=True, allow_none=True)


class BoundCardSchema(Schema):
    """A card that a device is or was bound to, and the half-open interval of this binding."""

    card_id = fields.Text(required=True)
    device_id = fields.Text(required=True)
    number_masked = fields.Text(required=True)
    bound_at = fields.Timestamp(required=True)
    unbound_at = fields.Timestamp(required=True, allow_none=True)
    unbound_because = fields.Text(required=True, allow_none=True)


class NewBindingOfDeviceSchema(Schema):
    """Which device to bind: a known one's `device_id`; or `fingerprint`, `name` and `platform`.

    A fingerprint that the card's merchant knows stands for that device, which keeps its name and platform.
    """

    device_id = fields.Identifier()
    fingerprint = fields.Text(length_min=1, length_max=FINGERPRINT_LENGTH_MAX)
    name = fields.Text(length_min=1, length_max=NAME_LENGTH_MAX)
    platform = fields.Text(length_min=1, length_max=PLATFORM_LENGTH_MAX, metadata={"example": "android"})


class DeviceChangeSchema(Schema):
    """What of a device changes; what is left out stays. `blocked` asks for a `reason`; `bound` unblocks."""

    name = fields.Text(length_min=1, length_max=NAME_LENGTH_MAX)
    platform = fields.Text(length_min=1, length_max=PLATFORM_LENGTH_MAX)
    status = fields.Word(SETTABLE_STATUSES)
    reason = fields.Reason(required=False)


class UnbindQuery(Schema):
    """From which card to unbind the device; without one, from all of its cards."""

    card_id = fields.Identifier()


class HistoryQuery(PageQuery):
    """Only present bindings, or with `history=true` those that have ended, too."""

    history = fields.QueryBoolean(load_default=False)


class DeviceQuery(PageQuery):
    """Which devices. `q`: an id, a fingerprint, or a part of the name. `card_id`: those on this card now."""

    q = fields.Text(length_max=FINGERPRINT_LENGTH_MAX)
    status = fields.Word(DEVICE_STATUSES)
    connected = fields.Word(CONNECTIONS, data_key="connection")
    merchant_id = fields.Identifier()
    card_id = fields.Identifier()
    platform = fields.Text(length_max=PLATFORM_LENGTH_MAX)


class DeviceLogSchema(Schema):
    """What a device says that it did, or, of `source` `system`, what was done to it."""

    device_id = fields.Text(required=True)
    event_id = fields.Text(required=True)
    merchant_id = fields.Text(required=True)
    card_id = fields.Text(required=True, allow_none=True)
    source = fields.Word(LOG_SOURCES, required=True)
    action = fields.Text(required=True)
    result = fields.Text(required=True)
    ip = fields.Text(required=True, allow_none=True)
    detail = fields.Text(required=True, allow_none=True)
    actor_name = fields.Text(required=True, allow_none=True)
    time = fields.Timestamp(required=True)
    received_at = fields.Timestamp(required=True)


class DeviceLogQuery(PageQuery, TimeRangeQuery):
    """Which rows. `q`: a keyword, anywhere in action, result, address and detail; alone, of the last 30 days."""

    device_id = fields.Identifier()
    card_id = fields.Identifier()
    merchant_id = fields.Identifier()
    action = fields.Text(length_min=1, length_max=WORD_LENGTH_MAX)
    result = fields.Text(length_min=1, length_max=WORD_LENGTH_MAX)
    source = fields.Word(LOG_SOURCES)
    q = fields.Text(length_min=1, length_max=100)


class NewDeviceLogSchema(Schema):
    """One event of a device. Of two rows with one `event_id` the first that came stays.

    `card_id` is a card that the device is or was bound to. A card number in the detail is masked.
    """

    event_id = fields.Identifier(required=True)
    time = fields.Timestamp(required=True)
    action = fields.Text(
        required=True,
        length_max=WORD_LENGTH_MAX,
        validate=validate.Regexp(r"^[a-z][a-z0-9_.-]*\Z"),
        metadata={"example": "payment"},
    )
    result = fields.Text(length_max=WORD_LENGTH_MAX, validate=validate.Regexp(r"^[a-z][a-z0-9_.-]*\Z"))
    card_id = fields.Identifier(allow_none=True)
    ip = fields.Text(length_max=45, allow_none=True)
    detail = fields.Text(allow_none=True)


class LogRowsField(fields.List[Any]):
    """Rows as they were sent. The service reads each by itself, so that a wrong one keeps back no other."""

    def __init__(self) -> None:
        super().__init__(fields.Nested(NewDeviceLogSchema), required=True, validate=validate.Length(1, LOG_ROWS_MAX))

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        return value


class NewDeviceLogsSchema(Schema):
    """Up to 1 000 rows of a device's log, in any order, as often as it takes."""

    rows = LogRowsField()


class LogRowResultSchema(Schema):
    """What became of a row: `duplicate` was stored before; `errors` says by field why a row is refused."""

    event_id = fields.Text(required=True, allow_none=True)
    outcome = fields.Word(ROW_OUTCOMES, required=True)
    errors = fields.Dict(keys=fields.Text(), values=fields.List(fields.Text()))


class LogRowsResultSchema(Schema):
    """What became of each row, in their order."""

    items = fields.List(fields.Nested(LogRowResultSchema), required=True)
    stored = fields.Integer(required=True)
    duplicates = fields.Integer(required=True)
    refused = fields.Integer(required=True)


class HeartbeatSchema(Schema):
    """When the heartbeat arrived by our clock, and within how many seconds the next is expected.

    A device whose `status` is no longer `bound` should stop.
    """

    device_id = fields.Text(required=True)
    status = fields.Word(DEVICE_STATUSES, required=True)
    last_seen_at = fields.Timestamp(required=True)
    next_within_seconds = fields.Integer(required=True)


class NewHeartbeatsSchema(Schema):
    """The devices of a fleet that are there."""

    device_ids = fields.List(fields.Identifier(), required=True, validate=validate.Length(1, HEARTBEATS_MAX))


class HeartbeatResultSchema(Schema):
    """What became of one heartbeat of a fleet."""

    device_id = fields.Text(required=True)
    outcome = fields.Word(HEARTBEAT_OUTCOMES, required=True)
    status = fields.Word(DEVICE_STATUSES, required=True, allow_none=True)
    last_seen_at = fields.Timestamp(required=True, allow_none=True)


class HeartbeatsSchema(Schema):
    """What became of each heartbeat of a fleet, in the order in which devices were first named."""

    items = fields.List(fields.Nested(HeartbeatResultSchema), required=True)
    seen = fields.Integer(required=True)
    not_found = fields.Integer(required=True)
    next_within_seconds = fields.Integer(required=True)
