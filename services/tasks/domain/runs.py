"""The states of a run, and whether another attempt follows it."""

from datetime import timedelta
from enum import StrEnum


class RunStatus(StrEnum):
    """Where a run is: queued → running → one of the others, which are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"


class Trigger(StrEnum):
    """Why a run exists."""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    RETRY = "retry"


FINAL = frozenset(RunStatus) - {RunStatus.QUEUED, RunStatus.RUNNING}
RETRIED = frozenset({RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.LOST})
BACKOFF_FIRST = timedelta(seconds=5)
BACKOFF_MAX = timedelta(minutes=10)


def is_retried(status: RunStatus, *, attempt: int, retries: int, is_permanent: bool) -> bool:
    """Return whether another attempt follows a run that ended so.

    is_permanent: another attempt would find the same, such as a ledger that does not add up.
    """
    return status in RETRIED and attempt <= retries and not is_permanent


def backoff(attempt: int) -> timedelta:
    """Return how long to wait after this attempt: it doubles each time, up to `BACKOFF_MAX`."""
    return min(BACKOFF_FIRST * float(2 ** min(attempt - 1, 20)), BACKOFF_MAX)
