"""Running a task by hand, and cancelling a run."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.tasks.domain.runs import FINAL, RunStatus, Trigger
from services.tasks.models import TaskRun
from services.tasks.queries import active_runs, run_view
from services.tasks.usecases.tasks import database_now, lock_task
from shared import outbox
from shared.contracts.tasks import (
    AlreadyRunning,
    RunAlreadyFinished,
    TaskRunCancelled,
    TaskRunNotFound,
    TaskRunRequested,
    TaskRunView,
    UnknownTaskParameter,
)
from shared.ids import new_id
from shared.passport import Passport


def run_task(session: Session, passport: Passport, *, name: str, params: dict[str, Any] | None = None) -> TaskRunView:
    """Queue a run of a task, enabled or not; an instance takes it within about a second.

    params: none of the built-in tasks has any yet.
    Raises, in order: TaskNotFound; UnknownTaskParameter; AlreadyRunning when as many as the task allows run, or wait
    to, with `run_id`.
    Emits: TaskRunRequested.
    """
    task = lock_task(session, name)
    if params:
        raise UnknownTaskParameter(errors={f"params.{key}": ["Unknown parameter."] for key in params})
    now = database_now(session)
    active = active_runs(session, name, now)
    if len(active) >= task.concurrency:
        raise AlreadyRunning(run_id=active[0])
    run_id = new_id("run")
    run = TaskRun(
        id=run_id,
        task_name=name,
        origin_id=run_id,
        attempt=1,
        trigger=Trigger.MANUAL,
        requested_by=passport.actor_id,
        due_at=now,
        status=RunStatus.QUEUED,
        is_cancel_requested=False,
    )
    session.add(run)
    session.flush()
    outbox.add(session, TaskRunRequested(task_run_id=run_id, task=name))
    return run_view(passport, run)


def cancel_task_run(session: Session, passport: Passport, *, run_id: str) -> TaskRunView:
    """Cancel a run: at once while it waits, at the end of its present step while it runs.

    Returns: the run, `cancelled`, or `running` with `is_cancel_requested`.
    Raises, in order: TaskRunNotFound, RunAlreadyFinished.
    Emits: TaskRunCancelled, when it is.
    """
    run = session.scalar(select(TaskRun).where(TaskRun.id == run_id).with_for_update())
    if run is None:
        raise TaskRunNotFound
    if run.status in FINAL:
        raise RunAlreadyFinished(status=run.status)
    run.is_cancel_requested = True
    if run.status == RunStatus.QUEUED:
        run.status, run.finished_at = RunStatus.CANCELLED, database_now(session)
        outbox.add(session, TaskRunCancelled(task_run_id=run.id, task=run.task_name, attempt=run.attempt))
    return run_view(passport, run)
