"""What others may know of what happened to a card."""

from typing import Any, TypedDict


class CardEventView(TypedDict):
    """One thing that happened to a card. `changes`: field to before and after; `details`: what else the event says."""

    card_id: str
    time: str
    kind: str
    event: str
    merchant_id: str | None
    actor_id: str
    actor_name: str
    actor_type: str
    request_id: str
    reason: str | None
    changes: dict[str, Any] | None
    details: dict[str, Any]


class TimelinePage(TypedDict):
    """One page of what happened to a card, the latest first."""

    items: list[CardEventView]
    next_cursor: str | None
