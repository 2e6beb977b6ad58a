"""Reads of a card's timeline."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.cards.domain.timelines import cut_changes
from services.cards.queries import find_card, position_of
from services.cards.timeline.models import CardEvent
from shared.contracts.card_timelines import CardEventView, TimelinePage
from shared.paging import LIMIT_DEFAULT, encode_cursor
from shared.passport import Passport
from shared.times import parse_rfc3339, rfc3339


def list_card_timeline(
    session: Session,
    passport: Passport,
    *,
    card_id: str,
    kind: str | None = None,
    from_time: str | None = None,
    to_time: str | None = None,
    limit: int = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> TimelinePage:
    """Return what happened to a card, the latest first.

    What happened while it was a merchant's that the caller does not see is left out.
    Raises: CardNotFound, InvalidCursor.
    """
    find_card(session, passport, card_id)
    query = select(CardEvent).where(CardEvent.card_id == card_id)
    merchants = passport.merchant_filter()
    if merchants is not None:
        query = query.where(CardEvent.merchant_id.in_(merchants))
    if kind is not None:
        query = query.where(CardEvent.kind == kind)
    if from_time is not None:
        query = query.where(CardEvent.occurred_at >= parse_rfc3339(from_time))
    if to_time is not None:
        query = query.where(CardEvent.occurred_at < parse_rfc3339(to_time))
    if cursor:
        query = query.where(CardEvent.id < position_of(cursor, int))
    rows = list(session.scalars(query.order_by(CardEvent.id.desc()).limit(limit + 1)))
    more = len(rows) > limit
    return {
        "items": [_view(row, passport) for row in rows[:limit]],
        "next_cursor": encode_cursor([rows[limit - 1].id]) if more else None,
    }


def _view(row: CardEvent, passport: Passport) -> CardEventView:
    return {
        "card_id": row.card_id,
        "time": rfc3339(row.occurred_at),
        "kind": row.kind,
        "event": row.event,
        "merchant_id": row.merchant_id,
        "actor_id": row.actor_id,
        "actor_name": row.actor_name,
        "actor_type": row.actor_type,
        "request_id": row.request_id,
        "reason": row.reason,
        "changes": cut_changes(row.changes, passport.merchants),
        "details": row.details,
    }
