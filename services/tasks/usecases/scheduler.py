"""What the scheduler does by itself: opens slots, lends runs, takes them back from who died, and ends them.

Any number of instances do this at once. A slot is a row that can exist once; a run is lent under a row lock, with a
lease by the database's clock and a fencing token, and whoever no longer holds the token can write nothing about it.
Source: RELIABILITY.md R21, R22.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from environs import Env
from sqlalchemy import Select, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.tasks.domain.runs import RunStatus, Trigger, backoff, is_retried
from services.tasks.domain.schedules import look, next_time
from services.tasks.models import IS_QUEUED, IS_RUNNING, Task, TaskRun, TaskRunLog, fencing_tokens
from services.tasks.queries import active_runs
from services.tasks.usecases.tasks import database_now
from shared import outbox
from shared.contracts.tasks import (
    LeaseLost,
    TaskRunCancelled,
    TaskRunFailed,
    TaskRunStarted,
    TaskRunSucceeded,
)
from shared.events import Event
from shared.ids import new_id
from shared.times import rfc3339

log = structlog.get_logger(__name__)

LEASE = timedelta(seconds=Env().float("TASK_LEASE_SECONDS", 30))
"""How long an instance may be silent before its run is taken back; how often it speaks follows from this."""
LOST_RUNS_PER_LOOK_MAX = 100
LOG_MESSAGE_LENGTH_MAX = 2_000
LOST = "The instance that ran it stopped answering."


@dataclass(frozen=True)
class ClaimedRun:
    """A run that this instance holds, as long as its lease is extended and nobody else got a higher `fence`."""

    id: str
    task: str
    trigger: str
    attempt: int
    fence: int
    timeout_s: int


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `is_permanent`: trying again would find the same."""

    status: RunStatus
    result: dict[str, Any] | None = None
    error: str | None = None
    is_permanent: bool = False


def open_due_slots(session: Session) -> list[str]:
    """Queue a run for each slot that is due, and note when each task is due next.

    Slots that nobody looked at in time, and those of a task that runs as often as it may, are skipped.
    Returns: the ids of the new runs.
    Locks: the tasks that are due, passing over those that another instance looks at.
    """
    now = database_now(session)
    due = select(Task).where(Task.enabled, func.coalesce(Task.next_run_at, now) <= now)
    opened = []
    for task in session.scalars(due.with_for_update(skip_locked=True, key_share=True)).all():
        if task.next_run_at is None:  # never looked at: a slot needs a beginning to be due after
            task.next_run_at = next_time(task.schedule, task.timezone, now)
            continue
        found = look(schedule=task.schedule, timezone=task.timezone, next_run_at=task.next_run_at, now=now)
        if found.slot is None:
            log.warning("slot missed", task=task.name, scheduled_for=rfc3339(task.next_run_at))
        elif run_id := _open_slot(session, task, found.slot, now):
            opened.append(run_id)
        task.next_run_at = found.next_run_at
    return opened


def _open_slot(session: Session, task: Task, slot: datetime, now: datetime) -> str | None:
    if len(active_runs(session, task.name, now)) >= task.concurrency:
        log.warning("slot skipped: the task still runs", task=task.name, scheduled_for=rfc3339(slot))
        return None
    run_id = new_id("run")
    statement = (
        insert(TaskRun)
        .values(
            id=run_id,
            task_name=task.name,
            origin_id=run_id,
            attempt=1,
            trigger=Trigger.SCHEDULE,
            scheduled_for=slot,
            due_at=slot,
            status=RunStatus.QUEUED,
        )
        # As a text, since PostgreSQL finds the partial index by its predicate, and none by a bound value.
        .on_conflict_do_nothing(index_elements=["task_name", "scheduled_for"], index_where=text("attempt = 1"))
        .returning(TaskRun.id)
    )
    return session.scalar(statement)


def claim_run(session: Session, *, owner: str) -> ClaimedRun | None:
    """Lend the run that is due longest, of a task that may run once more, to this instance.

    Emits: TaskRunStarted.
    Locks: a task with a run that is due, passing over those that another instance claims for; then the run.
    """
    now = database_now(session)
    full: list[str] = []
    while task := session.scalar(_next_candidate(now, full)):
        # Counted in a statement of its own, after the task is locked: it sees what the last claimer committed.
        if (session.scalar(_running_of(task.name)) or 0) < task.concurrency:
            queued = select(TaskRun).where(TaskRun.task_name == task.name, IS_QUEUED, TaskRun.due_at <= now)
            oldest = queued.order_by(TaskRun.due_at, TaskRun.id).limit(1).with_for_update(skip_locked=True)
            run = session.scalar(oldest)
            if run is not None:
                return _lend(session, task, run, owner=owner)
        full.append(task.name)
    return None


def _next_candidate(now: datetime, full: list[str]) -> Select[Any]:
    due_since = (
        select(func.min(TaskRun.due_at))
        .where(TaskRun.task_name == Task.name, IS_QUEUED, TaskRun.due_at <= now)
        .scalar_subquery()
    )
    return (
        select(Task)
        .where(
            due_since.is_not(None),
            _running_of(Task.name).scalar_subquery() < Task.concurrency,
            Task.name.not_in(full),
        )
        .order_by(due_since)
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True)
    )


def _running_of(name: Any) -> Select[Any]:
    return select(func.count(TaskRun.id)).where(TaskRun.task_name == name, IS_RUNNING)


def _lend(session: Session, task: Task, run: TaskRun, *, owner: str) -> ClaimedRun:
    now = database_now(session)
    fence = session.scalar(fencing_tokens.next_value())
    assert fence is not None
    run.status, run.fence, run.started_at = RunStatus.RUNNING, fence, now
    run.lease_owner, run.lease_until = owner, now + LEASE
    outbox.add(
        session,
        TaskRunStarted(
            task_run_id=run.id,
            task=task.name,
            trigger=run.trigger,
            attempt=run.attempt,
            scheduled_for=None if run.scheduled_for is None else rfc3339(run.scheduled_for),
        ),
    )
    return ClaimedRun(run.id, task.name, run.trigger, run.attempt, fence, task.timeout_s)


def extend_lease(session: Session, claimed: ClaimedRun) -> bool:
    """Say that the work still goes on. Returns: whether somebody asked to cancel it. Raises: LeaseLost."""
    statement = (
        update(TaskRun)
        .where(TaskRun.id == claimed.id, TaskRun.fence == claimed.fence, IS_RUNNING)
        .values(lease_until=func.clock_timestamp() + LEASE)
        .returning(TaskRun.is_cancel_requested)
    )
    is_cancel_requested = session.scalar(statement)
    if is_cancel_requested is None:
        raise LeaseLost
    return is_cancel_requested


def _lock_held(session: Session, claimed: ClaimedRun) -> TaskRun:
    held = select(TaskRun).where(TaskRun.id == claimed.id, TaskRun.fence == claimed.fence, IS_RUNNING)
    run = session.scalar(held.with_for_update())
    if run is None:
        raise LeaseLost
    return run


def write_log(session: Session, claimed: ClaimedRun, message: str, *, level: str) -> None:
    """Write a line of a run. Raises: LeaseLost."""
    _lock_held(session, claimed)
    session.add(TaskRunLog(run_id=claimed.id, level=level, message=message[:LOG_MESSAGE_LENGTH_MAX]))


def write_progress(session: Session, claimed: ClaimedRun, *, done: int, total: int | None, message: str) -> None:
    """Say how far a run is. Raises: LeaseLost."""
    _lock_held(session, claimed).progress = {"done": done, "total": total, "message": message}


def finish_run(session: Session, claimed: ClaimedRun, outcome: Outcome) -> None:
    """End a run that this instance holds.

    Raises: LeaseLost.
    Emits: TaskRunSucceeded, TaskRunFailed or TaskRunCancelled.
    """
    _end(session, _lock_held(session, claimed), outcome)


def mark_lost_runs(session: Session) -> list[str]:
    """End the runs whose instance let the lease run out: it died, or cannot reach the database.

    Returns: their ids.
    Emits: TaskRunFailed for each, with status `lost`.
    """
    overdue = (
        select(TaskRun)
        .where(IS_RUNNING, TaskRun.lease_until < func.clock_timestamp())
        .limit(LOST_RUNS_PER_LOOK_MAX)
        .with_for_update(skip_locked=True)
    )
    runs = session.scalars(overdue).all()
    for run in runs:
        log.warning("run lost", run=run.id, task=run.task_name, instance=run.lease_owner)
        session.add(TaskRunLog(run_id=run.id, level="error", message=LOST))
        _end(session, run, Outcome(RunStatus.LOST, error=LOST))
    return [run.id for run in runs]


def _end(session: Session, run: TaskRun, outcome: Outcome) -> None:
    now = database_now(session)
    run.status, run.finished_at, run.lease_until = outcome.status, now, None
    run.result, run.error = outcome.result, outcome.error
    retry_at = _retry(session, run, outcome, now)
    session.flush()
    outbox.add(session, _event_of(run, outcome, retry_at))


def _retry(session: Session, run: TaskRun, outcome: Outcome, now: datetime) -> datetime | None:
    """Queue the next attempt, if there is one, and return when it is due."""
    task = session.get_one(Task, run.task_name)
    # A disabled task does nothing by itself, but somebody who asked for a run gets it.
    is_wanted = (task.enabled or run.requested_by is not None) and not run.is_cancel_requested
    if not is_wanted or not is_retried(
        outcome.status, attempt=run.attempt, retries=task.retries, is_permanent=outcome.is_permanent
    ):
        return None
    retry_at = now + backoff(run.attempt)
    session.add(
        TaskRun(
            id=new_id("run"),
            task_name=run.task_name,
            origin_id=run.origin_id,
            attempt=run.attempt + 1,
            trigger=Trigger.RETRY,
            requested_by=run.requested_by,
            scheduled_for=run.scheduled_for,
            due_at=retry_at,
            status=RunStatus.QUEUED,
            is_cancel_requested=False,
        )
    )
    return retry_at


def _event_of(run: TaskRun, outcome: Outcome, retry_at: datetime | None) -> Event:
    if outcome.status is RunStatus.SUCCEEDED:
        return TaskRunSucceeded(
            task_run_id=run.id, task=run.task_name, attempt=run.attempt, result=outcome.result or {}
        )
    if outcome.status is RunStatus.CANCELLED:
        return TaskRunCancelled(task_run_id=run.id, task=run.task_name, attempt=run.attempt)
    return TaskRunFailed(
        task_run_id=run.id,
        task=run.task_name,
        attempt=run.attempt,
        status=outcome.status.value,
        reason=outcome.error or "",
        retry_at=None if retry_at is None else rfc3339(retry_at),
    )
