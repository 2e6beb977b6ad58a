"""Instants as RFC 3339 in UTC, and calendar days of a named time zone. Ranges are half open."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo


def utc_now() -> datetime:
    """Return this instant, aware, in UTC."""
    return datetime.now(UTC)


def rfc3339(instant: datetime) -> str:
    """Return the instant as the API writes it: `2026-11-22T09:30:00.123456Z`."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_rfc3339(text: str) -> datetime:
    """Return the instant that an RFC 3339 string names, in UTC.

    Raises: ValueError for what is no RFC 3339 time or has no offset.
    """
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None or len(text) < len("2026-11-22T09:30Z"):
        raise ValueError("a time needs its date, its time and its offset")
    return instant.astimezone(UTC)


def day_bounds(day: date, zone_name: str) -> tuple[datetime, datetime]:
    """Return the first instant of the calendar day in the zone and that of the next day, both in UTC."""
    zone = ZoneInfo(zone_name)
    first = datetime(day.year, day.month, day.day, tzinfo=zone)
    following = day + timedelta(days=1)
    last = datetime(following.year, following.month, following.day, tzinfo=zone)
    return first.astimezone(UTC), last.astimezone(UTC)


def today(zone_name: str) -> date:
    """Return the calendar day that it is now in the zone."""
    return utc_now().astimezone(ZoneInfo(zone_name)).date()


_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration_seconds(text: str) -> int:
    """Return the seconds of a parameter's duration such as "90s", "15m", "2h" or "7d"."""
    return int(text[:-1]) * _UNIT_SECONDS[text[-1]]
