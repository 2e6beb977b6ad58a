"""Changing a task: its schedule, how it runs, whether it runs by itself. Nothing here runs anything."""

from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.tasks.domain.runs import RunStatus
from services.tasks.domain.schedules import next_time
from services.tasks.models import IS_QUEUED, Task, TaskRun
from services.tasks.queries import task_view
from shared import outbox
from shared.contracts.tasks import (
    TaskDisabled,
    TaskEnabled,
    TaskNotFound,
    TaskRunCancelled,
    TaskUpdated,
    TaskView,
)
from shared.passport import Passport
from shared.times import rfc3339


def database_now(session: Session) -> datetime:
    """Return this instant by the clock that all instances share."""
    now: datetime | None = session.scalar(select(func.clock_timestamp()))
    assert now is not None
    return now


def lock_task(session: Session, name: str) -> Task:
    """Return a task that nobody else changes, claims for, or runs meanwhile. Raises: TaskNotFound."""
    # Without the key, so that inserting a run, which refers to the task, does not wait for this lock.
    task = session.scalar(select(Task).where(Task.name == name).with_for_update(key_share=True))
    if task is None:
        raise TaskNotFound
    return task


def update_task(
    session: Session,
    passport: Passport,
    *,
    name: str,
    schedule: str | None = None,
    timezone: str | None = None,
    timeout_s: int | None = None,
    retries: int | None = None,
    concurrency: int | None = None,
) -> TaskView:
    """Change when and how a task runs; what is None stays. A new schedule counts from now on.

    Raises, in order: TaskNotFound, InvalidSchedule, UnknownTimeZone.
    Emits: TaskUpdated, when something changed.
    """
    task = lock_task(session, name)
    wanted = {
        "schedule": schedule,
        "timezone": timezone,
        "timeout_s": timeout_s,
        "retries": retries,
        "concurrency": concurrency,
    }
    changes: dict[str, Any] = {}
    for field, value in wanted.items():
        before = getattr(task, field)
        if value is not None and value != before:
            setattr(task, field, value)
            changes[field] = {"before": before, "after": value}
    now = database_now(session)
    if changes.keys() & {"schedule", "timezone"}:
        upcoming = next_time(task.schedule, task.timezone, now)
        task.next_run_at = upcoming if task.enabled else None
    if changes:
        task.updated_at = now
        outbox.add(session, TaskUpdated(task_id=name, changes=changes))
    return task_view(session, passport, task)


def enable_task(session: Session, passport: Passport, *, name: str) -> TaskView:
    """Let a task run by its schedule, from the next time on: enabling runs nothing by itself.

    Raises: TaskNotFound.
    Emits: TaskEnabled, when it was disabled.
    """
    task = lock_task(session, name)
    if not task.enabled:
        now = database_now(session)
        task.enabled, task.updated_at = True, now
        task.next_run_at = next_time(task.schedule, task.timezone, now)
        changes = {"enabled": {"before": False, "after": True}}
        outbox.add(session, TaskEnabled(task_id=name, changes=changes))
    return task_view(session, passport, task)


def disable_task(session: Session, passport: Passport, *, name: str) -> TaskView:
    """Stop a task from running by itself. A run under way goes on; what waits, unless asked for by hand, is dropped.

    Raises: TaskNotFound.
    Emits: TaskDisabled, when it was enabled; TaskRunCancelled for each run that was dropped.
    """
    task = lock_task(session, name)
    if task.enabled:
        now = database_now(session)
        task.enabled, task.updated_at, task.next_run_at = False, now, None
        changes = {"enabled": {"before": True, "after": False}}
        outbox.add(session, TaskDisabled(task_id=name, changes=changes))
        _drop_queued(session, name, now)
    return task_view(session, passport, task)


def _drop_queued(session: Session, name: str, now: datetime) -> None:
    waiting = (
        select(TaskRun).where(TaskRun.task_name == name, IS_QUEUED, TaskRun.requested_by.is_(None)).with_for_update()
    )
    for run in session.scalars(waiting).all():
        run.status, run.finished_at = RunStatus.CANCELLED, now
        run.error = f"The task was disabled at {rfc3339(now)}."
        outbox.add(session, TaskRunCancelled(task_run_id=run.id, task=name, attempt=run.attempt))
