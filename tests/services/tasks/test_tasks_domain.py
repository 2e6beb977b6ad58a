"""When schedules fire and which run follows which, without a database."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from services.tasks.domain.runs import RunStatus, backoff, is_retried
from services.tasks.domain.schedules import look, next_time, times_after
from shared.contracts.tasks import InvalidSchedule, UnknownTimeZone

BERLIN = "Europe/Berlin"


def utc(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def first(count, schedule, timezone, after):
    return list(itertools.islice(times_after(schedule, timezone, utc(after)), count))


def test_a_time_that_spring_skips_fires_at_the_first_instant_after_the_gap():
    # 2026-03-29 in Berlin: 02:00 becomes 03:00.
    assert first(3, "30 2 * * *", BERLIN, "2026-03-27 12:00") == [
        utc("2026-03-28 01:30"),
        utc("2026-03-29 01:00"),  # 03:00 summer time
        utc("2026-03-30 00:30"),
    ]


def test_a_time_that_autumn_repeats_fires_once():
    # 2026-10-25 in Berlin: 03:00 becomes 02:00.
    assert first(3, "30 2 * * *", BERLIN, "2026-10-24 12:00") == [
        utc("2026-10-25 00:30"),  # the first 02:30
        utc("2026-10-26 01:30"),
        utc("2026-10-27 01:30"),
    ]


@pytest.mark.parametrize("after", ["2026-10-25 00:30", "2026-10-25 01:10", "2026-10-25 01:30"])
def test_in_the_repeated_hour_the_first_one_is_over(after):
    assert next_time("30 2 * * *", BERLIN, utc(after)) == utc("2026-10-26 01:30")


def test_two_times_that_spring_makes_one_instant_fire_once():
    assert first(3, "0,30 2-3 * * *", BERLIN, "2026-03-29 00:00") == [
        utc("2026-03-29 01:00"),
        utc("2026-03-29 01:30"),
        utc("2026-03-30 00:00"),
    ]


def test_every_hour_is_every_hour_on_both_changes():
    for after in ("2026-03-28 22:30", "2026-10-24 22:30"):
        times = first(8, "0 * * * *", BERLIN, after)
        assert {later - earlier for earlier, later in itertools.pairwise(times)} == {timedelta(hours=1)}


def test_a_year_of_daily_runs_has_one_a_day():
    times = first(365, "30 2 * * *", BERLIN, "2026-01-01 12:00")
    days = [(t + timedelta(hours=1)).date() for t in times]
    assert days == [days[0] + timedelta(days=n) for n in range(365)]


def test_the_schedule_is_read_in_the_time_zone_of_the_task():
    assert next_time("0 9 * * *", "Asia/Shanghai", utc("2026-11-24 00:00")) == utc("2026-11-24 01:00")
    assert next_time("0 9 * * *", "UTC", utc("2026-11-24 00:00")) == utc("2026-11-24 09:00")


@pytest.mark.parametrize(
    "schedule",
    ["", "* * * *", "* * * * * *", "61 * * * *", "a b c d e", "*/0 * * * *", "0 0 30 2 *", "0 0 31 4,6,9,11 *"],
)
def test_what_is_no_schedule_or_never_fires_is_refused(schedule):
    with pytest.raises(InvalidSchedule) as refusal:
        times_after(schedule, "UTC", utc("2026-11-24 00:00"))
    assert "schedule" in refusal.value.errors


@pytest.mark.parametrize("timezone", ["Mars/Olympus", "", "../../etc/passwd", "/etc/localtime", "Europe"])
def test_an_unknown_time_zone_is_refused(timezone):
    with pytest.raises(UnknownTimeZone):
        times_after("0 3 * * *", timezone, utc("2026-11-24 00:00"))


@pytest.mark.parametrize(
    ("next_run_at", "now", "slot", "then"),
    [
        # not yet
        ("2026-11-24 10:05", "2026-11-24 10:04:59", None, "2026-11-24 10:05"),
        # on time, and a little late
        ("2026-11-24 10:05", "2026-11-24 10:05", "2026-11-24 10:05", "2026-11-24 10:10"),
        ("2026-11-24 10:05", "2026-11-24 10:06", "2026-11-24 10:05", "2026-11-24 10:10"),
        # missed by more than the grace: skipped
        ("2026-11-24 10:05", "2026-11-24 10:06:01", None, "2026-11-24 10:10"),
        # down for two hours: what was missed is skipped, what is due now runs
        ("2026-11-24 08:05", "2026-11-24 10:05:30", "2026-11-24 10:05", "2026-11-24 10:10"),
        ("2026-11-24 08:05", "2026-11-24 10:08", None, "2026-11-24 10:10"),
    ],
)
def test_a_look_finds_the_slot_to_run_and_skips_what_was_missed(next_run_at, now, slot, then):
    due = look(schedule="*/5 * * * *", timezone="UTC", next_run_at=utc(next_run_at), now=utc(now))
    assert due.slot == (utc(slot) if slot else None)
    assert due.next_run_at == utc(then)


def test_a_long_pause_is_skipped_in_one_step():
    due = look(
        schedule="* * * * *", timezone="UTC", next_run_at=utc("2016-01-01 00:00"), now=utc("2026-11-24 10:00:10")
    )
    assert due.slot == utc("2026-11-24 10:00")
    assert due.next_run_at == utc("2026-11-24 10:01")


@pytest.mark.parametrize(
    ("status", "attempt", "retries", "is_permanent", "again"),
    [
        ("failed", 1, 2, False, True),
        ("failed", 2, 2, False, True),
        ("failed", 3, 2, False, False),
        ("failed", 1, 0, False, False),
        ("failed", 1, 2, True, False),
        ("timed_out", 1, 1, False, True),
        ("lost", 1, 1, False, True),
        ("succeeded", 1, 5, False, False),
        ("cancelled", 1, 5, False, False),
    ],
)
def test_failures_are_tried_again_as_often_as_the_task_says(status, attempt, retries, is_permanent, again):
    assert is_retried(RunStatus(status), attempt=attempt, retries=retries, is_permanent=is_permanent) is again


def test_the_wait_doubles_up_to_ten_minutes():
    assert [backoff(n).total_seconds() for n in (1, 2, 3, 4)] == [5, 10, 20, 40]
    assert backoff(100) == timedelta(minutes=10)
