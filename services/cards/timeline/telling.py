"""Tell of what happened to cards: to everybody by the outbox, and in the card's own timeline."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.cards.domain.timelines import details_of, kind_of
from services.cards.timeline.models import CardEvent
from shared import outbox
from shared.events import Event
from shared.masking import mask_text, mask_typed
from shared.rpc.wire import current_call


def tell(session: Session, *events: Event) -> None:
    """Tell of events when the session's transaction commits; those about one card stand in its timeline from then on.

    Emits: the events.
    """
    outbox.add(session, *events)
    rows = [_row(event, kind) for event in events if (kind := kind_of(event)) is not None]
    if rows:
        session.execute(sa.insert(CardEvent), rows)


def _row(event: Event, kind: str) -> dict[str, Any]:
    passport = current_call.get().passport
    payload = event.payload()
    return {
        "card_id": payload["card_id"],
        "kind": kind,
        "event": type(event).__name__,
        "merchant_id": payload["merchant_id"],
        "actor_id": passport.actor_id,
        "actor_name": mask_text(passport.actor_name),
        "actor_type": passport.actor_type,
        "request_id": passport.request_id,
        "reason": mask_typed(payload.get("reason")),
        "changes": mask_typed(payload.get("changes")),
        "details": mask_typed(details_of(event)),
    }
