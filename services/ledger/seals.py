"""The proof of closed days: each says what was sealed, and follows the day before it."""

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.figures import Period, seal
from services.ledger.models.reconciliations import closed_days


def broken_seals(session: Session) -> list[str]:
    """Return what is wrong with closed days, a sentence each: one that was changed, one that is missing."""
    found = []
    before: Any = None
    for row in session.execute(sa.select(closed_days).order_by(closed_days.c.day)):
        if before is not None and row.day != before.day + timedelta(days=1):
            found.append(f"Closed day {row.day}: the day before it is missing.")
        elif row.previous_digest != (None if before is None else before.digest):
            found.append(f"Closed day {row.day}: it does not follow the day before.")
        if row.digest != _digest_of(row):
            found.append(f"Closed day {row.day}: it does not say what was sealed.")
        before = row
    end = session.execute(sa.text("select place, digest from chain_ends where chain = 'closed_days'")).first()
    last = None if before is None else (before.day.isoformat(), bytes(before.digest))
    if last != (None if end is None else (end.place, bytes(end.digest))):
        found.append(f"Closed days end with {last and last[0]}; the last one closed was {end and end.place}.")
    return found


def _digest_of(row: Any) -> bytes:
    return seal(
        period=Period(row.day, row.starts_at, row.ends_at),
        zone_name=row.zone_name,
        rows=row.totals,
        reason=row.reason,
        actor_id=row.actor_id,
        actor_name=row.actor_name,
        previous_digest=row.previous_digest,
    )
