"""The four daily checks, and the rows behind each: what must be equal, over the caller's merchants.

The parts of a check (`checks_sql`) are summed for its total and shown as its rows; what was posted is summed from the
hourly totals instead. Of a day with entries that have left for an archive there are figures, and no checks any more: a
check of what is left would say that something is wrong where nothing is, or the other way round.
"""

from datetime import date
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.checks_sql import (
    CONSUMPTION,
    EXPECTED,
    LARGE,
    LARGE_ENTRIES,
    LARGE_ROWS,
    PARTS,
    RECHARGE,
    REFUNDS,
    ROWS,
)
from services.ledger.domain.entries import entry_id
from services.ledger.domain.figures import Period, Total, differences, figures_of
from services.ledger.domain.thresholds import Threshold
from services.ledger.queries.figures import periods, sealed_totals, totals_of
from services.ledger.queries.pages import plan_for_these_values
from shared.contracts.reconciliations import CheckRowPage, CheckRowView, CheckView, DailyView, DayArchived
from shared.money import format_minor
from shared.paging import InvalidCursor, decode_cursor, encode_cursor
from shared.passport import Passport
from shared.times import rfc3339

TOLERANCE_MINOR: Final = 0
Sums = dict[tuple[str, str], int]  # by currency and channel, "" for none


def read_daily_checks(
    session: Session, passport: Passport, *, day: date, zone_name: str, threshold: Threshold
) -> DailyView:
    """Return the four checks of a day and its figures, cut to the caller's merchants.

    A closed day's figures are as they were sealed; the checks are of the day as it is now. An archived day has none.
    """
    merchants = passport.merchant_filter()
    [period], closed = periods(session, [day], zone_name=zone_name)
    now = totals_of(session, [period], merchants)[day]
    sealed = sealed_totals(closed[day], merchants) if closed else None
    has_left = _is_archived(session, period)
    return {
        "date": day.isoformat(),
        "timezone": zone_name,
        "closed_at": rfc3339(closed[day].closed_at) if closed else None,
        "is_archived": has_left,
        "items": [] if has_left else _checks(session, _asked(period, merchants), now, threshold),
        "figures": figures_of(now if sealed is None else sealed),
        "after_close": [] if sealed is None else figures_of(differences(now, sealed)),
    }


def _is_archived(session: Session, period: Period) -> bool:
    """Return whether entries of a day have left the log. Archives are of months of UTC."""
    query = sa.text(
        "select exists (select from archives where cast(month as timestamp) at time zone 'UTC' < :ends_at"
        " and (cast(month as timestamp) + interval '1 month') at time zone 'UTC' > :starts_at)"
    )
    bounds = {"starts_at": period.starts_at, "ends_at": period.ends_at}
    return bool(session.execute(query, bounds).scalar_one())


def _asked(period: Period, merchants: list[str] | None) -> dict[str, Any]:
    """Return what the parts of a check are asked with."""
    return {"day": period.day, "starts_at": period.starts_at, "ends_at": period.ends_at, "merchants": merchants}


def _checks(session: Session, asked: dict[str, Any], now: list[Total], threshold: Threshold) -> list[CheckView]:
    plan_for_these_values(session)
    session.execute(sa.text("set local work_mem = '64MB'"))
    session.execute(sa.text("set local jit = off"))
    recharge, refund = _posted_sums(now, "recharge", sign=1), _posted_sums(now, "refund", sign=1)
    consumption = _posted_sums(now, "consumption", "resets", sign=-1)
    recharged, consumed = _expected_sums(session, RECHARGE, asked), _expected_sums(session, CONSUMPTION, asked)
    refunded = dict(refund)
    for place, (expected, actual) in _part_sums(session, REFUNDS, asked).items():
        refunded[place] = refunded.get(place, 0) + expected - actual
    places = {(total.currency, total.channel) for total in now}.union(recharged, consumed, refunded)
    currencies = sorted({currency for currency, _ in places})
    return [
        *_amounts(RECHARGE, recharged, recharge, currencies),
        *_amounts(CONSUMPTION, consumed, consumption, currencies),
        *_large_changes(session, asked, currencies, threshold),
        *_amounts(REFUNDS, refunded, refund, currencies),
    ]


def _posted_sums(now: list[Total], *buckets: str, sign: int) -> Sums:
    sums: Sums = {}
    for total in now:
        if total.bucket in buckets:
            place = (total.currency, total.channel)
            sums[place] = sums.get(place, 0) + sign * total.amount
    return sums


def _expected_sums(session: Session, name: str, asked: dict[str, Any]) -> Sums:
    return {place: expected for place, (expected, _) in _part_sums(session, name, asked).items()}


def _part_sums(session: Session, name: str, asked: dict[str, Any]) -> dict[tuple[str, str], tuple[int, int]]:
    query = f"""
        select currency, coalesce(channel, '') as channel, sum(expected) as expected, sum(actual) as actual
          from ({EXPECTED[name]}) as part
         group by 1, 2
    """
    rows = session.execute(sa.text(query), asked)
    return {(row.currency, row.channel): (int(row.expected), int(row.actual)) for row in rows}


def _amounts(name: str, expected: Sums, actual: Sums, currencies: list[str]) -> list[CheckView]:
    """Return a check of amounts, of each currency and channel that a side names, and of each currency of the day."""
    places = expected.keys() | actual.keys()
    places |= {(currency, "") for currency in currencies if all(currency != named for named, _ in places)}
    found: list[CheckView] = []
    for currency, channel in sorted(places):
        there, due = actual.get((currency, channel), 0), expected.get((currency, channel), 0)
        found.append(
            {
                "name": name,
                "currency": currency,
                "channel": channel or None,
                "unit": "amount",
                "expected": format_minor(due, currency),
                "actual": format_minor(there, currency),
                "difference": format_minor(there - due, currency),
                "tolerance": format_minor(TOLERANCE_MINOR, currency),
                "ok": abs(there - due) <= TOLERANCE_MINOR,
            }
        )
    return found


def _large_changes(
    session: Session, asked: dict[str, Any], currencies: list[str], threshold: Threshold
) -> list[CheckView]:
    counting = sa.text(f"select e.currency, count(*) as entries {LARGE_ENTRIES} group by 1")
    counts = {row.currency: row.entries for row in session.execute(counting, asked | _least(threshold, currencies))}
    return [
        {
            "name": LARGE,
            "currency": currency,
            "channel": None,
            "unit": "count",
            "expected": "0",
            "actual": str(counts.get(currency, 0)),
            "difference": str(counts.get(currency, 0)),
            "tolerance": "0",
            "ok": currency not in counts,
        }
        for currency in currencies
    ]


def _least(threshold: Threshold, currencies: list[str]) -> dict[str, str]:
    """Return the parameter that says from how many minor units a change is large, by currency."""
    return {"thresholds": orjson.dumps({currency: threshold.minor(currency) for currency in currencies}).decode()}


def list_daily_check_rows(
    session: Session,
    passport: Passport,
    *,
    day: date,
    check: str,
    zone_name: str,
    threshold: Threshold,
    currency: str | None,
    channel: str | None,
    is_all: bool,
    limit: int,
    cursor: str | None,
) -> CheckRowPage:
    """Return one page of the rows behind a check, by order number, cut to the caller's merchants.

    channel: "" is none, as a check of no channel has it.
    is_all: those that agree too, and not only those that do not.
    Raises, in order: DayArchived; InvalidCursor.
    """
    plan_for_these_values(session)
    merchants = passport.merchant_filter()
    [period], _ = periods(session, [day], zone_name=zone_name)
    if _is_archived(session, period):
        raise DayArchived
    asked = _asked(period, merchants) | {
        "currency": currency,
        "channel": channel,
        "is_all": is_all,
        "limit": limit + 1,
        **_place_after(cursor),
    }
    if check == LARGE:
        currencies = sorted({total.currency for total in totals_of(session, [period], merchants)[day]})
        rows = session.execute(sa.text(LARGE_ROWS), asked | _least(threshold, currencies)).all()
    else:
        rows = session.execute(sa.text(ROWS.format(parts=PARTS[check])), asked).all()
    shown = rows[:limit]
    return {
        "items": [_row_view(row) for row in shown],
        "next_cursor": encode_cursor([shown[-1].subject, *shown[-1][1:3]]) if len(rows) > limit else None,
    }


def _place_after(cursor: str | None) -> dict[str, str]:
    """Return the place that a list goes on from. Raises: InvalidCursor."""
    place = decode_cursor(cursor, length=3) if cursor else ["", "", ""]
    if any(not isinstance(value, str) for value in place):
        raise InvalidCursor.of_field("cursor", InvalidCursor.title)
    return dict(zip(("after", "after_currency", "after_channel"), place, strict=True))


def _row_view(row: Any) -> CheckRowView:
    expected, actual = int(row.expected), int(row.actual)
    return {
        "order_no": row.order_no,
        "upstream_ref": row.upstream_ref,
        "entry_id": None if row.account_id is None else entry_id(row.account_id, row.version),
        "merchant_id": row.merchant_id,
        "channel": row.channel or None,
        "currency": row.currency,
        "expected": format_minor(expected, row.currency),
        "actual": format_minor(actual, row.currency),
        "difference": format_minor(actual - expected, row.currency),
    }
