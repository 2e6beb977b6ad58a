"""What can be done to reconcile: one channel's day, in one transaction that finds, reopens and heals mismatches."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.matching_sql import MATCH, NOTE_FOUND, VOID_PROPOSALS
from services.ledger.models.reconciliations import reconciliation_view, reconciliations
from services.ledger.queries.figures import periods
from services.ledger.queries.pages import plan_for_these_values
from shared import outbox
from shared.contracts.reconciliations import (
    EVENT_MISMATCHES_MAX,
    DayNotBegun,
    MismatchesFound,
    MismatchesHealed,
    MismatchFound,
    MismatchHealed,
    ReconciliationFinished,
    ReconciliationRunning,
    ReconciliationView,
)
from shared.errors import InvalidRequest, PermissionDenied
from shared.ids import new_id
from shared.money import format_minor
from shared.passport import Passport
from shared.times import utc_now

STATEMENT_SECONDS_MAX: Final = 900
HASH_MEGABYTES: Final = 64  # what a million orders take; a larger day goes through a file


def create_reconciliation(
    session: Session,
    passport: Passport,
    *,
    channel: str,
    day: date,
    zone_name: str,
    grace_seconds: int,
    judged_at: datetime | None = None,
) -> ReconciliationView:
    """Match a channel's day: what the platform's records say against what our orders say.

    What does not fit is a mismatch, the same one as before where it was found before; what was open and fits now has
    healed. Running it again over the same orders and records changes nothing.

    judged_at: the instant by which the grace is over or not; None is now.
    Raises, in order: PermissionDenied for who does not see all merchants; InvalidRequest for an unknown channel;
    DayNotBegun; ReconciliationRunning.
    Emits: ReconciliationFinished; MismatchFound and MismatchHealed, or MismatchesFound and MismatchesHealed where
    they are many.
    Locks: the channel's day, then the mismatches that it writes.
    """
    if passport.merchants is not None:
        raise PermissionDenied("A channel is reconciled over all merchants.")
    if not session.execute(sa.text("select 1 from channels where code = :code"), {"code": channel}).first():
        raise InvalidRequest.of_field("channel", "There is no channel with this code.")
    [period], closed = periods(session, [day], zone_name=zone_name)
    if period.starts_at > utc_now():
        raise DayNotBegun.of_field("date", DayNotBegun.title)
    _lock(session, channel, day)
    run_id = new_id("rec")
    healed = _match(
        session,
        {
            "run_id": run_id,
            "stem": f"mis_{run_id.removeprefix('rec_')}",
            "channel": channel,
            "day": day,
            "zone_name": closed[day].zone_name if closed else zone_name,
            "starts_at": period.starts_at,
            "ends_at": period.ends_at,
            "grace_seconds": grace_seconds,
            "judged_at": judged_at or utc_now(),
            "previous_id": _previous_id(session, channel, day),
            "actor_id": passport.actor_id,
            "actor_name": passport.actor_name,
            "request_id": passport.request_id,
            "told_max": EVENT_MISMATCHES_MAX,
        },
    )
    view = reconciliation_view(session.execute(sa.select(reconciliations).where(reconciliations.c.id == run_id)).one())
    _tell(session, view, healed)
    return view


def refresh_statistics(session: Session) -> None:
    """Have PostgreSQL look at what has come in, where that is much: in a transaction of its own, since it locks."""
    session.execute(sa.text("select refresh_statistics()"))


def _lock(session: Session, channel: str, day: date) -> None:
    """Be the only run over a channel's day. Raises: ReconciliationRunning."""
    taking = sa.text("select pg_try_advisory_xact_lock(hashtext('reconcile'), hashtext(:subject))")
    if not session.execute(taking, {"subject": f"{channel} {day}"}).scalar_one():
        raise ReconciliationRunning(retry_after_seconds=5)


def _match(session: Session, parameters: dict[str, Any]) -> Sequence[Any]:
    """Match, and note what was opened. Returns: the first of what has healed."""
    plan_for_these_values(session)
    session.execute(sa.text(f"set local statement_timeout = '{STATEMENT_SECONDS_MAX}s'"))
    session.execute(sa.text(f"set local work_mem = '{HASH_MEGABYTES}MB'"))
    session.execute(sa.text("set local jit = off"))
    session.execute(sa.text("set local enable_memoize = off"))  # each record and each order is looked up once
    healed = session.execute(MATCH, parameters).all()
    session.execute(VOID_PROPOSALS, {"channel": parameters["channel"], "day": parameters["day"]})
    session.execute(NOTE_FOUND, {"run_id": parameters["run_id"], "request_id": parameters["request_id"]})
    return healed


def _previous_id(session: Session, channel: str, day: date) -> str | None:
    r = reconciliations.c
    query = sa.select(r.id).where(r.channel == channel, r.day == day)
    return session.scalar(query.order_by(r.finished_at.desc(), r.id.desc()).limit(1))


_OPENED: Final = sa.text(
    """
    select m.id, m.kind, m.order_no, m.upstream_ref, m.merchant_id, m.currency, m.difference
      from mismatches m join mismatch_sightings s on s.mismatch_id = m.id and s.reconciliation_id = :run_id
     where m.found_by = :run_id
     order by m.id
     limit :told_max + 1
    """
)
_OPENED_BY_KIND: Final = sa.text(
    """
    select m.kind, count(*) as mismatches
      from mismatches m join mismatch_sightings s on s.mismatch_id = m.id and s.reconciliation_id = :run_id
     where m.found_by = :run_id
     group by m.kind
     order by m.kind
    """
)


def _tell(session: Session, view: ReconciliationView, healed: Sequence[Any]) -> None:
    of_run: dict[str, Any] = {"reconciliation_id": view["id"], "channel": view["channel"], "date": view["date"]}
    finished = ReconciliationFinished(
        **of_run,
        records=view["records"],
        orders=view["orders"],
        matched=view["matched"],
        expected=view["expected"],
        found=view["found"],
        healed=view["healed"],
    )
    outbox.add(session, finished)
    opened = session.execute(_OPENED, {"run_id": view["id"], "told_max": EVENT_MISMATCHES_MAX}).all()
    if len(opened) > EVENT_MISMATCHES_MAX:
        kinds = {row.kind: row.mismatches for row in session.execute(_OPENED_BY_KIND, {"run_id": view["id"]})}
        outbox.add(session, MismatchesFound(**of_run, count=sum(kinds.values()), kinds=kinds))
    else:
        outbox.add(session, *(MismatchFound(**of_run, **_told(row)) for row in opened))
    if len(healed) > EVENT_MISMATCHES_MAX:
        outbox.add(session, MismatchesHealed(**of_run, count=view["healed"]))
    else:
        outbox.add(session, *(MismatchHealed(**of_run, **_told(row)) for row in healed))


def _told(row: Any) -> dict[str, Any]:
    return {
        "mismatch_id": row.id,
        "kind": row.kind,
        "order_no": row.order_no,
        "upstream_ref": row.upstream_ref,
        "merchant_id": row.merchant_id,
        "currency": row.currency,
        "difference": format_minor(row.difference, row.currency),
    }
