"""Closing a day: its totals are sealed, each digest over the one before."""

from datetime import date, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.figures import Period, seal, sealed_rows
from services.ledger.models.reconciliations import closed_day_view, closed_days
from services.ledger.queries.figures import ONE_DAY, periods, totals_of
from shared import outbox
from shared.contracts.reconciliations import (
    ClosedDayView,
    DayAlreadyClosed,
    DayClosed,
    DayNotOver,
    DayNotReady,
    DayOutOfOrder,
)
from shared.errors import PermissionDenied
from shared.passport import Passport
from shared.times import rfc3339, utc_now

# No transaction lives longer: whatever was posted within the day is to be seen by then (shared/database.py).
SETTLING_TIME: Final = timedelta(minutes=5)


def close_day(
    session: Session, passport: Passport, *, day: date, reason: str, is_forced: bool, zone_name: str
) -> ClosedDayView:
    """Close a day: seal its totals of every merchant, currency, channel and bucket.

    What counts for it afterwards, since only corrections can, is shown as after the close. The first day that is
    closed may be any; from it on days are closed one after the other. There is no way back.

    is_forced: close it although mismatches of it are open or channels are not reconciled to the end.
    Raises, in order: PermissionDenied for who does not see all merchants; DayAlreadyClosed; DayOutOfOrder; DayNotOver;
    DayNotReady.
    Emits: DayClosed.
    Locks: the closing of days.
    """
    if passport.merchants is not None:
        raise PermissionDenied("A day is closed for all merchants.")
    session.execute(sa.text("select pg_advisory_xact_lock(hashtext('close_day'))"))
    c = closed_days.c
    last = session.execute(sa.select(closed_days).order_by(c.day.desc()).limit(1)).first()
    _check_order(day, last)
    [period], _ = periods(session, [day], zone_name=zone_name)
    over_at = period.ends_at + SETTLING_TIME
    if utc_now() < over_at:
        raise DayNotOver(closes_from=rfc3339(over_at))
    open_mismatches, channels_open = _open_things(session, period)
    if (open_mismatches or channels_open) and not is_forced:
        raise DayNotReady(open_mismatches=open_mismatches, channels_open=channels_open)
    rows = sealed_rows(totals_of(session, [period], None, is_by_merchant=True)[day])
    previous_digest = None if last is None else last.digest
    digest = seal(
        period=period,
        zone_name=zone_name,
        rows=rows,
        reason=reason,
        actor_id=passport.actor_id,
        actor_name=passport.actor_name,
        previous_digest=previous_digest,
    )
    closing = sa.insert(closed_days).values(
        day=day,
        zone_name=zone_name,
        starts_at=period.starts_at,
        ends_at=period.ends_at,
        totals=rows,
        digest=digest,
        previous_digest=previous_digest,
        reason=reason,
        actor_id=passport.actor_id,
        actor_name=passport.actor_name,
        request_id=passport.request_id,
    )
    row = session.execute(closing.returning(closed_days)).one()
    session.execute(_MOVE_END, {"day": day.isoformat(), "digest": digest})
    outbox.add(
        session,
        DayClosed(
            date=day.isoformat(),
            digest=digest.hex(),
            reason=reason,
            is_forced=is_forced,
            open_mismatches=open_mismatches,
            channels_open=channels_open,
        ),
    )
    return closed_day_view(row)


# By this the last day of all is missed if it goes.
_MOVE_END: Final = sa.text(
    """
    insert into chain_ends (chain, place, digest) values ('closed_days', :day, :digest)
        on conflict on constraint pk_chain_ends do update set place = excluded.place, digest = excluded.digest
    """
)


def _check_order(day: date, last: Any) -> None:
    """Refuse a day that is not the next one. Raises: DayAlreadyClosed, DayOutOfOrder."""
    if last is None:
        return
    if day <= last.day:
        raise DayAlreadyClosed(last_closed=last.day.isoformat())
    following = last.day + ONE_DAY
    if day != following:
        raise DayOutOfOrder(next_date=following.isoformat())


_OPEN_MISMATCHES: Final = sa.text(
    "select count(*) from mismatches where day = :day and status in ('open', 'pending_approval')"
)
# Registered channels with a paid order or a record of the day, unless the last run has judged them for good: when the
# day was over, with nothing that may still come right, and with every statement of the day that has come in.
_CHANNELS_OPEN: Final = sa.text(
    """
    select code
      from channels c
     where (exists (select from orders where channel = c.code and settled_at >= :starts_at and settled_at < :ends_at)
            or exists (select from upstream_records
                        where channel = c.code and occurred_at >= :starts_at and occurred_at < :ends_at))
       and not exists (
           select from (select started_at, expected from reconciliations where channel = c.code and day = :day
                         order by finished_at desc, id desc limit 1) as last_run
            where started_at >= :ends_at and expected = 0
              and not exists (select from statements
                               where channel = c.code and status = 'imported' and finished_at > started_at
                                 and rows_new + rows_changed > 0
                                 and first_occurred_at < :ends_at and last_occurred_at >= :starts_at))
     order by code
    """
)


def _open_things(session: Session, period: Period) -> tuple[int, list[str]]:
    bounds = {"day": period.day, "starts_at": period.starts_at, "ends_at": period.ends_at}
    open_mismatches = session.execute(_OPEN_MISMATCHES, {"day": period.day}).scalar_one()
    return int(open_mismatches), list(session.scalars(_CHANNELS_OPEN, bounds))
