"""Reads of reconciliation's runs. A run is over a whole channel, and so is seen only by who sees all merchants."""

from datetime import date
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.models.reconciliations import reconciliation_view, reconciliations
from services.ledger.queries.pages import plan_for_these_values
from shared.contracts.reconciliations import (
    MISMATCH_KINDS,
    ComparedMismatchView,
    ComparisonView,
    ReconciliationDetailView,
    ReconciliationNotFound,
    ReconciliationPage,
)
from shared.errors import InvalidRequest
from shared.money import format_minor
from shared.paging import InvalidCursor, decode_cursor, encode_cursor
from shared.passport import Passport


def list_reconciliations(
    session: Session, passport: Passport, *, channel: str | None, day: date | None, limit: int, cursor: str | None
) -> ReconciliationPage:
    """Return one page of runs, newest first. Raises: InvalidCursor."""
    if passport.merchants is not None:
        return {"items": [], "next_cursor": None}
    plan_for_these_values(session)
    r = reconciliations.c
    conditions = [r.channel == channel] if channel is not None else []
    conditions += [r.day == day] if day is not None else []
    conditions += [r.id < id_after(cursor)] if cursor else []
    query = (
        sa.select(reconciliations).where(*conditions).order_by(r.id.desc()).limit(limit + 1)
    )  # ids are in time's order
    rows = session.execute(query).all()
    shown = rows[:limit]
    return {
        "items": [reconciliation_view(row) for row in shown],
        "next_cursor": encode_cursor([shown[-1].id]) if len(rows) > limit else None,
    }


_DUE: Final = sa.text(
    """
    select code as channel, cast(:yesterday as date) as day
      from channels
     where status = 'active'
    union
    select r.channel, r.day
      from (select distinct on (channel, day) channel, day, expected
              from reconciliations
             where day < :yesterday
             order by channel, day, finished_at desc, id desc) as r
           join channels c on c.code = r.channel and c.status = 'active'
     where r.expected > 0
     order by day, channel
    """
)


def days_due(session: Session, *, yesterday: date) -> list[tuple[str, date]]:
    """Return what a morning reconciles, by channel and day, the earliest first.

    That is yesterday of each active channel, and each day before it of which the last run expected something.
    """
    return [(row.channel, row.day) for row in session.execute(_DUE, {"yesterday": yesterday})]


def id_after(cursor: str) -> str:
    """Return the id that a list goes on from. Raises: InvalidCursor."""
    [place] = decode_cursor(cursor, length=1)
    if not isinstance(place, str):
        raise InvalidCursor.of_field("cursor", InvalidCursor.title)
    return place


def get_reconciliation(session: Session, passport: Passport, *, reconciliation_id: str) -> ReconciliationDetailView:
    """Return a run with what it saw by kind. Raises: ReconciliationNotFound."""
    run = _run(session, passport, reconciliation_id)
    query = sa.text(
        """
        select m.kind, count(*) as seen, count(*) filter (where m.status in ('open', 'pending_approval')) as open
          from mismatch_sightings s join mismatches m on m.id = s.mismatch_id
         where s.reconciliation_id = :run_id
         group by m.kind
        """
    )
    seen = {row.kind: row for row in session.execute(query, {"run_id": run.id})}
    kinds = [seen[kind] for kind in MISMATCH_KINDS if kind in seen]
    return {
        **reconciliation_view(run),
        "kinds": [{"kind": row.kind, "count": row.seen, "open": row.open} for row in kinds],
    }


def _run(session: Session, passport: Passport, reconciliation_id: str) -> Any:
    query = sa.select(reconciliations).where(reconciliations.c.id == reconciliation_id)
    run = session.execute(query).first() if passport.merchants is None else None
    if run is None:
        raise ReconciliationNotFound
    return run


_BOTH: Final = """
with both_runs as (
    select mismatch_id, bool_or(reconciliation_id = :run_id) as is_in_this,
           bool_or(reconciliation_id = :with_id) as is_in_that
      from mismatch_sightings
     where reconciliation_id in (:run_id, :with_id)
     group by mismatch_id
), compared as (
    select mismatch_id, case when is_in_this and is_in_that then 'still' when is_in_this then 'new' else 'gone' end
           as change
      from both_runs
)
"""
_CHANGES: Final = sa.text(f"{_BOTH} select change, count(*) as mismatches from compared group by change")
_CHANGED: Final = sa.text(
    f"""{_BOTH}
    select c.change, m.id, m.kind, m.status, m.order_no, m.upstream_ref, m.merchant_id, m.currency, m.difference
      from compared c join mismatches m on m.id = c.mismatch_id
     where (cast(:change as text) is null or c.change = :change) and (cast(:after as text) is null or m.id > :after)
     order by m.id
     limit :limit
    """
)


def compare_reconciliations(
    session: Session,
    passport: Passport,
    *,
    reconciliation_id: str,
    with_id: str | None,
    change: str | None,
    limit: int,
    cursor: str | None,
) -> ComparisonView:
    """Return what a run saw against what another of the same channel and day saw.

    with_id: None is the run before it.
    change: `new`, `gone` or `still` shows only those; the counts are of all.
    Raises, in order: ReconciliationNotFound; InvalidRequest for a run of another channel or day; InvalidCursor.
    """
    run = _run(session, passport, reconciliation_id)
    if with_id is None and run.previous_id is None:
        raise InvalidRequest.of_field("with", "There is no run before this one.")
    other = _run(session, passport, with_id or run.previous_id)
    if (other.channel, other.day) != (run.channel, run.day):
        raise InvalidRequest.of_field("with", "Must be a run of the same channel and day.")
    runs = {"run_id": run.id, "with_id": other.id}
    counts = {row.change: row.mismatches for row in session.execute(_CHANGES, runs)}
    page = {"change": change, "after": id_after(cursor) if cursor else None, "limit": limit + 1}
    rows = session.execute(_CHANGED, runs | page).all()
    shown = rows[:limit]
    return {
        "id": run.id,
        "with_id": other.id,
        "new": counts.get("new", 0),
        "gone": counts.get("gone", 0),
        "still": counts.get("still", 0),
        "items": [_compared_view(row) for row in shown],
        "next_cursor": encode_cursor([shown[-1].id]) if len(rows) > limit else None,
    }


def _compared_view(row: Any) -> ComparedMismatchView:
    return {
        "change": row.change,
        "mismatch_id": row.id,
        "kind": row.kind,
        "status": row.status,
        "order_no": row.order_no,
        "upstream_ref": row.upstream_ref,
        "merchant_id": row.merchant_id,
        "currency": row.currency,
        "difference": format_minor(row.difference, row.currency),
    }
