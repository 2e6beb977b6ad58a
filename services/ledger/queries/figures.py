"""The figures of days: sums of entries by channel and bucket, a correction counted on the day that it corrects.

They come from the hourly totals, which know all entries that ever were; only the ends of a day that lie within an hour
are read from the entries, and from the totals of archives, which know each quarter of an hour.
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.days import DayOf, days_of, days_of_month
from services.ledger.domain.figures import BALANCE, BUCKETS, Period, Total, differences, figures_of
from services.ledger.domain.filters import whole_hours
from services.ledger.models.reconciliations import closed_day_view, closed_days
from services.ledger.queries.pages import plan_for_these_values
from shared.contracts.reconciliations import ClosedDayPage, MonthlyView
from shared.paging import InvalidCursor, decode_cursor, encode_cursor
from shared.passport import Passport
from shared.times import day_bounds

_BUCKET_OF_TYPE: Final = " ".join(
    f"when type in ({', '.join(map(str, types))}) then '{bucket}'" for bucket, types in BUCKETS.items()
)
ONE_DAY: Final = timedelta(days=1)
_MINE: Final = "(cast(:merchants as text[]) is null or {table}.merchant_id = any(:merchants))"


def _summed(table: str, one: str, at: str, first: str, last: str) -> str:
    """Return the sums of a table's rows of each day between two of its instants, where they are two."""
    entries, amount = ("1", "e.amount") if one == "e" else (f"{one}.entries", f"{one}.increase + {one}.decrease")
    merchant_id = "{merchant_id}"
    return f"""
        select d.day, {merchant_id} as merchant_id, {one}.currency, coalesce({one}.channel, '') as channel, {one}.type,
               sum({entries}) as entries, sum({amount}) as amount
          from days d join {table} {one} on {at} >= d.{first} and {at} < d.{last}
         where d.{first} < d.{last} and {_MINE.format(table=one)}
         group by 1, 2, 3, 4, 5
    """


# `base` is what was posted, when it was posted. Of that, what a correction posted for another day does not count for
# this day's buckets (`moved`), and what corrections of any day posted for this one does (`counted`).
_TOTALS: Final = f"""
    with days as (
        select * from unnest(cast(:days as date[]), cast(:starts as timestamptz[]), cast(:ends as timestamptz[]),
                             cast(:first_hours as timestamptz[]), cast(:last_hours as timestamptz[]))
               as d(day, starts_at, ends_at, first_hour, last_hour)
    ), base as (
        {_summed("hourly_totals", "h", "h.hour", "first_hour", "last_hour")}
        union all
        {_summed("posting_deltas", "h", "h.hour", "first_hour", "last_hour")}
        union all
        {_summed("entries", "e", "e.created_at", "starts_at", "first_hour")}
        union all
        {_summed("entries", "e", "e.created_at", "last_hour", "ends_at")}
        union all
        {_summed("archive_totals", "a", "a.quarter", "starts_at", "first_hour")}
        union all
        {_summed("archive_totals", "a", "a.quarter", "last_hour", "ends_at")}
    ), moved as (
        select d.day, c.merchant_id, c.currency, coalesce(c.channel, '') as channel, c.type, c.amount
          from days d join correction_entries c on c.posted_at >= d.starts_at and c.posted_at < d.ends_at
         where {_MINE.format(table="c")}
    ), counted as (
        select d.day, c.merchant_id, c.currency, coalesce(c.channel, '') as channel, c.bucket, c.amount
          from days d join correction_entries c on c.day = d.day
         where {_MINE.format(table="c")}
    )
    select day, {{merchant_id}} as merchant_id, currency, channel, bucket, sum(entries) as entries,
           sum(amount) as amount
      from (select day, merchant_id, currency, channel, '{BALANCE}' as bucket, entries, amount from base
            union all
            select day, merchant_id, currency, channel, case {_BUCKET_OF_TYPE} end, entries, amount from base
            union all
            select day, merchant_id, currency, channel, case {_BUCKET_OF_TYPE} end, -1, -amount from moved
            union all
            select day, merchant_id, currency, channel, bucket, 1, amount from counted) as part
     where bucket is not null
     group by 1, 2, 3, 4, 5
"""
_BY_MERCHANT: Final = sa.text(_TOTALS.format(merchant_id="merchant_id"))
_OF_ALL: Final = sa.text(_TOTALS.format(merchant_id="''"))


def periods(session: Session, days: Iterable[date], *, zone_name: str) -> tuple[list[Period], dict[date, Any]]:
    """Return days as they are counted, and those of them that are closed, as rows of closed_days.

    A closed day is as long as it was when it was sealed. The day before the first one ends, and the day after the last
    one begins, where those do: nothing falls between days, or counts on two, when the time zone is changed.
    """
    wanted = list(days)
    c = closed_days.c
    ends = [sa.select(end(c.day)).scalar_subquery() for end in (sa.func.min, sa.func.max)]
    query = sa.select(closed_days).where(sa.or_(c.day.between(wanted[0], wanted[-1]), c.day.in_(ends)))
    closed = {row.day: row for row in session.execute(query)}
    bounds = (closed[min(closed)], closed[max(closed)]) if closed else None
    found = [
        Period(day, closed[day].starts_at, closed[day].ends_at)
        if day in closed
        else _open_period(day, bounds, zone_name)
        for day in wanted
    ]
    return found, {day: closed[day] for day in wanted if day in closed}


def days_of_books(session: Session, zone_name: str) -> DayOf:
    """Return which day of the books an instant is of: that of the zone, unless closed days have it on another."""

    @cache
    def near(there: date) -> list[Period]:
        return periods(session, (there - ONE_DAY, there, there + ONE_DAY), zone_name=zone_name)[0]

    def day_of(at: datetime) -> date:
        there = days_of(zone_name)(at)
        return next((period.day for period in near(there) if period.starts_at <= at < period.ends_at), there)

    return day_of


def _open_period(day: date, closed: tuple[Any, Any] | None, zone_name: str) -> Period:
    """Return an open day beside the first and the last that are closed."""
    starts_at, ends_at = day_bounds(day, zone_name)
    if closed is None:
        return Period(day, starts_at, ends_at)
    first, last = closed
    if day > last.day:
        starts_at = last.ends_at if day == last.day + ONE_DAY else max(starts_at, last.ends_at)
        return Period(day, starts_at, max(starts_at, ends_at))
    ends_at = first.starts_at if day == first.day - ONE_DAY else min(ends_at, first.starts_at)
    return Period(day, min(starts_at, ends_at), ends_at)


def totals_of(
    session: Session, wanted: Sequence[Period], merchants: list[str] | None, *, is_by_merchant: bool = False
) -> dict[date, list[Total]]:
    """Return the totals of days as they are now, cut to merchants; with `is_by_merchant` for each of them."""
    plan_for_these_values(session)
    hours = [whole_hours(p.starts_at, p.ends_at) or (p.ends_at, p.ends_at) for p in wanted]
    session.execute(sa.text("set local jit = off"))
    parameters = {
        "days": [p.day for p in wanted],
        "starts": [p.starts_at for p in wanted],
        "ends": [p.ends_at for p in wanted],
        "first_hours": [first for first, _ in hours],
        "last_hours": [last for _, last in hours],
        "merchants": merchants,
    }
    found: dict[date, list[Total]] = {p.day: [] for p in wanted}
    for row in session.execute(_BY_MERCHANT if is_by_merchant else _OF_ALL, parameters):
        entries, amount = int(row.entries), int(row.amount)
        found[row.day].append(Total(row.merchant_id, row.currency, row.channel, row.bucket, entries, amount))
    return found


def sealed_totals(row: Any, merchants: list[str] | None) -> list[Total]:
    """Return the totals of a closed day as they were sealed, cut to merchants, summed over them."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for merchant_id, currency, channel, bucket, entries, amount in row.totals:
        if merchants is None or merchant_id in merchants:
            place = sums.setdefault((currency, channel, bucket), [0, 0])
            place[0] += entries
            place[1] += amount
    return [Total("", *place, *sums[place]) for place in sorted(sums)]


def read_monthly_figures(session: Session, passport: Passport, *, first: date, zone_name: str) -> MonthlyView:
    """Return the figures of a month, cut to the caller's merchants: the sum of its days.

    A closed day counts as it was sealed; what was corrected of it afterwards stands in `after_close`.
    first: the month's first day.
    """
    merchants = passport.merchant_filter()
    wanted, closed = periods(session, days_of_month(first), zone_name=zone_name)
    now = totals_of(session, wanted, merchants)
    of_day: dict[date, list[Total]] = {}
    after: list[Total] = []
    for period in wanted:
        of_day[period.day] = now[period.day]
        if period.day in closed:
            sealed = of_day[period.day] = sealed_totals(closed[period.day], merchants)
            after += differences(now[period.day], sealed)
    return {
        "month": f"{first:%Y-%m}",
        "timezone": zone_name,
        "is_closed": len(closed) == len(wanted),
        "items": figures_of(total for totals in of_day.values() for total in totals),
        "after_close": figures_of(after),
        "days": [
            {"date": day.isoformat(), "is_closed": day in closed, "items": figures_of(totals)}
            for day, totals in of_day.items()
        ],
    }


def list_closed_days(session: Session, *, limit: int, cursor: str | None) -> ClosedDayPage:
    """Return one page of closed days, the last first. Raises: InvalidCursor."""
    query = sa.select(closed_days)
    if cursor:
        query = query.where(closed_days.c.day < _day_after(cursor))
    rows = session.execute(query.order_by(closed_days.c.day.desc()).limit(limit + 1)).all()
    shown = rows[:limit]
    return {
        "items": [closed_day_view(row) for row in shown],
        "next_cursor": encode_cursor([shown[-1].day.isoformat()]) if len(rows) > limit else None,
    }


def _day_after(cursor: str) -> date:
    try:
        return date.fromisoformat(decode_cursor(cursor, length=1)[0])
    except (TypeError, ValueError):
        raise InvalidCursor.of_field("cursor", InvalidCursor.title) from None
