"""Reads of tasks and runs. What a run counted or found reaches over all merchants, and is shown to who sees all."""

import itertools
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from services.tasks.domain.schedules import times_after
from services.tasks.models import IS_QUEUED, IS_RUNNING, Task, TaskRun, TaskRunLog
from shared.contracts.tasks import (
    SchedulePreview,
    TaskNotFound,
    TaskPage,
    TaskRunLogPage,
    TaskRunNotFound,
    TaskRunPage,
    TaskRunView,
    TaskView,
)
from shared.errors import PermissionDenied
from shared.paging import LIMIT_DEFAULT, InvalidCursor, decode_cursor, encode_cursor
from shared.passport import Passport
from shared.times import rfc3339

PREVIEW_TIMES = 10


def run_view(passport: Passport, run: TaskRun) -> TaskRunView:
    """Return what this caller may know of a run."""
    return run.view(is_whole=passport.merchants is None)


def task_view(session: Session, passport: Passport, task: Task) -> TaskView:
    """Return a task with its last run."""
    last = session.scalar(select(TaskRun).where(TaskRun.task_name == task.name).order_by(TaskRun.id.desc()).limit(1))
    return task.view(None if last is None else run_view(passport, last))


def active_runs(session: Session, name: str, now: datetime) -> list[str]:
    """Return the ids of the task's runs that run, or wait only for an instance to take them."""
    active = or_(IS_RUNNING, and_(IS_QUEUED, TaskRun.due_at <= now))
    return list(session.scalars(select(TaskRun.id).where(TaskRun.task_name == name, active).order_by(TaskRun.id)))


def list_tasks(
    session: Session, passport: Passport, *, limit: int = LIMIT_DEFAULT, cursor: str | None = None
) -> TaskPage:
    """Return the tasks, by name. Raises: InvalidCursor."""
    query = select(Task).order_by(Task.name).limit(limit + 1)
    if cursor:
        query = query.where(Task.name > _position(cursor, str))
    tasks = session.scalars(query).all()
    more = len(tasks) > limit
    return {
        "items": [task_view(session, passport, task) for task in tasks[:limit]],
        "next_cursor": encode_cursor([tasks[limit - 1].name]) if more else None,
    }


def get_task(session: Session, passport: Passport, *, name: str) -> TaskView:
    """Return one task. Raises: TaskNotFound."""
    return task_view(session, passport, _find_task(session, name))


def preview_schedule(session: Session, *, schedule: str, timezone: str) -> SchedulePreview:
    """Return the next times at which a schedule would fire. Raises: InvalidSchedule, UnknownTimeZone."""
    now: datetime | None = session.scalar(select(func.clock_timestamp()))
    assert now is not None
    times = list(itertools.islice(times_after(schedule, timezone, now), PREVIEW_TIMES))
    zone = ZoneInfo(timezone)
    return {
        "schedule": schedule,
        "timezone": timezone,
        "times": [rfc3339(time) for time in times],
        "local_times": [time.astimezone(zone).isoformat() for time in times],
    }


def list_task_runs(
    session: Session,
    passport: Passport,
    *,
    name: str,
    status: str | None = None,
    limit: int = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> TaskRunPage:
    """Return the runs of a task, newest first. Raises: TaskNotFound, InvalidCursor."""
    _find_task(session, name)
    query = select(TaskRun).where(TaskRun.task_name == name)
    if status is not None:
        query = query.where(TaskRun.status == status)
    if cursor:
        query = query.where(TaskRun.id < _position(cursor, str))
    runs = session.scalars(query.order_by(TaskRun.id.desc()).limit(limit + 1)).all()
    more = len(runs) > limit
    return {
        "items": [run_view(passport, run) for run in runs[:limit]],
        "next_cursor": encode_cursor([runs[limit - 1].id]) if more else None,
    }


def get_task_run(session: Session, passport: Passport, *, run_id: str) -> TaskRunView:
    """Return one run. Raises: TaskRunNotFound."""
    return run_view(passport, _find_run(session, run_id))


def list_task_run_logs(
    session: Session, passport: Passport, *, run_id: str, limit: int = LIMIT_DEFAULT, cursor: str | None = None
) -> TaskRunLogPage:
    """Return the lines of a run, oldest first, as they are read.

    Returns: with `run_status`; when that is final, no line will come after those that are there.
    Raises, in order: TaskRunNotFound; PermissionDenied to who sees some merchants only; InvalidCursor.
    """
    # The run is read before its lines: if it is final here, no line can come after those that are read next.
    run = _find_run(session, run_id)
    if passport.merchants is not None:
        raise PermissionDenied("The log of a run reaches over all merchants.")
    after = _position(cursor, int) if cursor else 0
    query = select(TaskRunLog).where(TaskRunLog.run_id == run_id, TaskRunLog.id > after)
    lines = session.scalars(query.order_by(TaskRunLog.id).limit(limit + 1)).all()
    more = len(lines) > limit
    return {
        "items": [line.view() for line in lines[:limit]],
        "next_cursor": encode_cursor([lines[limit - 1].id]) if more else None,
        "run_status": run.status,
    }


def _find_task(session: Session, name: str) -> Task:
    task = session.get(Task, name)
    if task is None:
        raise TaskNotFound
    return task


def _find_run(session: Session, run_id: str) -> TaskRun:
    run = session.get(TaskRun, run_id)
    if run is None:
        raise TaskRunNotFound
    return run


def _position(cursor: str, kind: type) -> Any:
    [position] = decode_cursor(cursor, length=1)
    # What the database cannot hold comes from no list of ours either.
    is_beyond = position >= 2**63 if isinstance(position, int) else "\x00" in str(position)
    if type(position) is not kind or is_beyond:
        raise InvalidCursor.of_field("cursor", InvalidCursor.title)
    return position
