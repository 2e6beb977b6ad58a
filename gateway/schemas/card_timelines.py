"""What happened to a card, as the API shows it."""

from gateway.schemas import fields
from gateway.schemas.base import PageQuery, Schema, TimeRangeQuery

TIMELINE_KINDS = ("status", "balance", "device", "merchant", "limits", "details", "reveal")


class CardEventSchema(Schema):
    """One thing that happened to a card, by whom and why."""

    card_id = fields.Text(required=True)
    time = fields.Timestamp(required=True)
    kind = fields.Word(TIMELINE_KINDS, required=True)
    event = fields.Text(required=True)
    merchant_id = fields.Text(required=True, allow_none=True)
    actor_id = fields.Text(required=True)
    actor_name = fields.Text(required=True)
    actor_type = fields.Text(required=True)
    request_id = fields.Text(required=True)
    reason = fields.Text(required=True, allow_none=True)
    changes = fields.Dict(
        keys=fields.Text(),
        values=fields.Raw(),
        required=True,
        allow_none=True,
        metadata={"description": "By field: `before` and `after`."},
    )
    details = fields.Dict(keys=fields.Text(), values=fields.Raw(), required=True)


class TimelineQuery(PageQuery, TimeRangeQuery):
    """Which part of a card's timeline."""

    kind = fields.Word(TIMELINE_KINDS)
