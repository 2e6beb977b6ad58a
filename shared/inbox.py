"""The inbox: which events already had their effect here. Source: RELIABILITY.md R3."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.events import Envelope
from shared.kernel_tables import inbox

KEEP_DAYS = 30  # longer than any message can wait in a queue or among the dead letters


def take_new(session: Session, handler: str, envelopes: Sequence[Envelope]) -> list[Envelope]:
    """Note the events as received, in the transaction of their effect, and return those that are new."""
    rows = [{"handler": handler, "event_id": e["event_id"]} for e in envelopes]
    statement = insert(inbox).values(rows).on_conflict_do_nothing().returning(inbox.c.event_id)
    new_ids = set(session.execute(statement).scalars())
    new = []
    for envelope in envelopes:  # a batch may hold the same event twice
        if envelope["event_id"] in new_ids:
            new_ids.discard(envelope["event_id"])
            new.append(envelope)
    return new


def forget_old(session: Session) -> None:
    """Delete what can no longer be delivered again."""
    session.execute(
        sa.text("delete from inbox where received_at < now() - make_interval(days => :days)"), {"days": KEEP_DAYS}
    )
