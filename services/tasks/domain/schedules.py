"""When a cron schedule fires, in the task's time zone, with daylight saving as Debian's cron has it.

A time that the spring change skips fires at the first instant after the gap; one that the autumn change repeats
fires once. A schedule with a `*` in its minutes or hours follows elapsed time and so fires in both repeated hours.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from shared.contracts.tasks import InvalidSchedule, UnknownTimeZone

FIELDS = 5
SCHEDULE_LENGTH_MAX = 200
MISFIRE_GRACE = timedelta(seconds=60)
"""A slot that is later than this when somebody looks was missed, and is skipped."""


def require_zone(name: str) -> ZoneInfo:
    """Return the time zone of this name. Raises: UnknownTimeZone."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UnknownTimeZone.of_field("timezone", UnknownTimeZone.title) from None


def times_after(schedule: str, timezone: str, after: datetime) -> Iterator[datetime]:
    """Return the instants at which the schedule fires after an instant, ascending, in UTC.

    Raises: InvalidSchedule for what is no cron expression of five fields or never fires; UnknownTimeZone.
    """
    zone = require_zone(timezone)
    if len(schedule) > SCHEDULE_LENGTH_MAX or len(schedule.split()) != FIELDS:
        raise InvalidSchedule.of_field("schedule", InvalidSchedule.title)
    try:
        simulation = CronSim(schedule, after.astimezone(zone))
        first = next(simulation)
    except StopIteration:
        raise InvalidSchedule.of_field("schedule", "This schedule never fires.") from None
    except (CronSimError, ValueError, OverflowError):
        raise InvalidSchedule.of_field("schedule", InvalidSchedule.title) from None
    return _ascending(itertools.chain([first], simulation), after)


def _ascending(local_times: Iterator[datetime], after: datetime) -> Iterator[datetime]:
    # Around a clock change the simulation may name an instant twice (02:30 and 03:00 of a spring day are one), or
    # one that is over (02:30 in the second of the two hours of an autumn day).
    last = after
    for local in local_times:
        instant = local.astimezone(UTC)
        if instant > last:
            yield instant
            last = instant


def next_time(schedule: str, timezone: str, after: datetime) -> datetime | None:
    """Return when the schedule fires next after an instant; None if it never does again.

    Raises: InvalidSchedule, UnknownTimeZone.
    """
    return next(times_after(schedule, timezone, after), None)


@dataclass(frozen=True)
class Due:
    """What a look at a task's schedule found: the slot to run, if any, and when to look again."""

    slot: datetime | None
    next_run_at: datetime | None


def look(*, schedule: str, timezone: str, next_run_at: datetime, now: datetime) -> Due:
    """Return the slot that is to run now, and the next one to wait for.

    Slots that are later than `MISFIRE_GRACE` are skipped; of several within it, only the latest runs.
    """
    if next_run_at > now:
        return Due(None, next_run_at)
    horizon = max(next_run_at, now - MISFIRE_GRACE)
    slot = None
    # One microsecond earlier, so that a slot that is exactly at the horizon counts.
    for instant in times_after(schedule, timezone, horizon - timedelta(microseconds=1)):
        if instant > now:
            return Due(slot, instant)
        slot = instant
    return Due(slot, None)
