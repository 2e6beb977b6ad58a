"""The tables of reconciliation as reads know them, and how others see their rows. Writes stand in `matching_sql`."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from shared.contracts.reconciliations import ClosedDayView, ReconciliationView
from shared.times import rfc3339

_metadata = sa.MetaData()

reconciliations: Final = sa.Table(
    "reconciliations",
    _metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("channel", sa.Text),
    sa.Column("day", sa.Date),
    sa.Column("zone_name", sa.Text),
    sa.Column("records", sa.BigInteger),
    sa.Column("orders", sa.BigInteger),
    sa.Column("matched", sa.BigInteger),
    sa.Column("expected", sa.BigInteger),
    sa.Column("found", sa.BigInteger),
    sa.Column("healed", sa.BigInteger),
    sa.Column("previous_id", sa.Text),
    sa.Column("actor_id", sa.Text),
    sa.Column("actor_name", sa.Text),
    sa.Column("started_at", sa.DateTime(timezone=True)),
    sa.Column("finished_at", sa.DateTime(timezone=True)),
)

closed_days: Final = sa.Table(
    "closed_days",
    _metadata,
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("zone_name", sa.Text),
    sa.Column("starts_at", sa.DateTime(timezone=True)),
    sa.Column("ends_at", sa.DateTime(timezone=True)),
    sa.Column("totals", JSONB),
    sa.Column("digest", sa.LargeBinary),
    sa.Column("previous_digest", sa.LargeBinary),
    sa.Column("reason", sa.Text),
    sa.Column("actor_id", sa.Text),
    sa.Column("actor_name", sa.Text),
    sa.Column("request_id", sa.Text),
    sa.Column("closed_at", sa.DateTime(timezone=True)),
)


def reconciliation_view(row: Any) -> ReconciliationView:
    """Return a row of reconciliations as others know it."""
    return {
        "id": row.id,
        "channel": row.channel,
        "date": row.day.isoformat(),
        "timezone": row.zone_name,
        "records": row.records,
        "orders": row.orders,
        "matched": row.matched,
        "expected": row.expected,
        "found": row.found,
        "healed": row.healed,
        "previous_id": row.previous_id,
        "actor_id": row.actor_id,
        "actor_name": row.actor_name,
        "started_at": rfc3339(row.started_at),
        "finished_at": rfc3339(row.finished_at),
    }


def closed_day_view(row: Any) -> ClosedDayView:
    """Return a row of closed_days as others know it; its totals are read as figures."""
    return {
        "date": row.day.isoformat(),
        "timezone": row.zone_name,
        "starts_at": rfc3339(row.starts_at),
        "ends_at": rfc3339(row.ends_at),
        "digest": row.digest.hex(),
        "previous_digest": None if row.previous_digest is None else row.previous_digest.hex(),
        "reason": row.reason,
        "actor_id": row.actor_id,
        "actor_name": row.actor_name,
        "closed_at": rfc3339(row.closed_at),
    }
