"""Calendar days and months as clients write them."""

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from shared.errors import InvalidRequest

DayOf = Callable[[datetime], date]


def days_of(zone_name: str) -> DayOf:
    """Return which calendar day of a zone an instant is of."""
    zone = ZoneInfo(zone_name)
    return lambda at: at.astimezone(zone).date()


def check_day(text: str) -> date:
    """Return the day that a text such as 2026-11-22 names. Raises: InvalidRequest."""
    try:
        day = date.fromisoformat(text)
    except (TypeError, ValueError):
        raise InvalidRequest.of_field("date", "Must be a day such as 2026-11-22.") from None
    if not date.min < day < date.max:
        raise InvalidRequest.of_field("date", "Must be a day such as 2026-11-22.")
    return day


def check_month(text: str) -> date:
    """Return the first day of the month that a text such as 2026-11 names. Raises: InvalidRequest."""
    try:
        first = date.fromisoformat(f"{text}-01")
    except (TypeError, ValueError):
        raise InvalidRequest.of_field("month", "Must be a month such as 2026-11.") from None
    if not date(2, 1, 1) < first < date(9998, 1, 1):
        raise InvalidRequest.of_field("month", "Must be a month such as 2026-11.")
    return first


def days_of_month(first: date) -> Iterator[date]:
    """Yield the days of the month that begins with a day."""
    day = first
    while day.month == first.month:
        yield day
        day += timedelta(days=1)
