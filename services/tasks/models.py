"""The tables of tasks: what may run, what runs, what it wrote."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, Sequence, func, literal_column, text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from services.tasks.domain.runs import RunStatus
from shared.contracts.tasks import TaskRunLogView, TaskRunView, TaskView
from shared.times import rfc3339

fencing_tokens = Sequence("task_run_fencing_tokens")


class Base(DeclarativeBase):
    """The tables of this service."""

    type_annotation_map = {datetime: TIMESTAMP(timezone=True), dict[str, Any]: JSONB(none_as_null=True)}


class Task(Base):
    """Something that can run. `next_run_at` is empty while the task is disabled."""

    __tablename__ = "tasks"
    __table_args__ = (
        CheckConstraint("timeout_s between 1 and 86400", name="ck_tasks_timeout_s"),
        CheckConstraint("retries between 0 and 10", name="ck_tasks_retries"),
        CheckConstraint("concurrency between 1 and 10", name="ck_tasks_concurrency"),
        Index("ix_tasks_next_run_at", "next_run_at", postgresql_where=text("enabled")),
    )

    name: Mapped[str] = mapped_column(primary_key=True)
    description: Mapped[str]
    enabled: Mapped[bool]
    schedule: Mapped[str]
    timezone: Mapped[str]
    timeout_s: Mapped[int]
    retries: Mapped[int]
    concurrency: Mapped[int]
    next_run_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    def view(self, last_run: TaskRunView | None) -> TaskView:
        """Return what others may know of the task."""
        return {
            "name": self.name,
            "description": self.description,
            "enabled": self.enabled,
            "schedule": self.schedule,
            "timezone": self.timezone,
            "timeout_s": self.timeout_s,
            "retries": self.retries,
            "concurrency": self.concurrency,
            "next_run_at": _instant(self.next_run_at),
            "last_run": last_run,
            "updated_at": rfc3339(self.updated_at),
        }


class TaskRun(Base):
    """One attempt at a task. `fence` numbers who holds it: only the present number may write about the run."""

    __tablename__ = "task_runs"
    __table_args__ = (
        # A slot is run once, whoever looks; and each attempt follows its first run once.
        Index("uq_task_runs_slot", "task_name", "scheduled_for", unique=True, postgresql_where=text("attempt = 1")),
        Index("uq_task_runs_attempt", "origin_id", "attempt", unique=True),
        Index("ix_task_runs_task_name", "task_name", text("id desc")),
        Index("ix_task_runs_queued", "task_name", "due_at", postgresql_where=text("status = 'queued'")),
        Index("ix_task_runs_running", "task_name", "lease_until", postgresql_where=text("status = 'running'")),
        CheckConstraint(
            "status in ('queued', 'running', 'succeeded', 'failed', 'timed_out', 'cancelled', 'lost')",
            name="ck_task_runs_status",
        ),
        CheckConstraint("(status = 'running') = (lease_until is not null)", name="ck_task_runs_lease"),
        CheckConstraint("(status in ('queued', 'running')) = (finished_at is null)", name="ck_task_runs_finished_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    task_name: Mapped[str] = mapped_column(ForeignKey("tasks.name", name="fk_task_runs_task_name"))
    origin_id: Mapped[str]
    attempt: Mapped[int]
    trigger: Mapped[str]
    requested_by: Mapped[str | None]
    scheduled_for: Mapped[datetime | None]
    due_at: Mapped[datetime]
    status: Mapped[str]
    is_cancel_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    fence: Mapped[int | None] = mapped_column(BigInteger)
    lease_owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    progress: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]

    def view(self, *, is_whole: bool) -> TaskRunView:
        """Return what others may know of the run.

        is_whole: with what it counted and found, which reaches over all merchants.
        """
        progress: Any = self.progress
        return {
            "id": self.id,
            "task": self.task_name,
            "status": RunStatus(self.status).value,
            "trigger": self.trigger,
            "attempt": self.attempt,
            "origin_id": self.origin_id,
            "requested_by": self.requested_by,
            "scheduled_for": _instant(self.scheduled_for),
            "due_at": rfc3339(self.due_at),
            "started_at": _instant(self.started_at),
            "finished_at": _instant(self.finished_at),
            "is_cancel_requested": self.is_cancel_requested,
            "progress": progress if is_whole else None,
            "result": self.result if is_whole else None,
            "error": self.error if is_whole else None,
        }


# The statuses are literals, not bound values, so that every plan may use the partial indexes.
IS_QUEUED = TaskRun.status == literal_column("'queued'")
IS_RUNNING = TaskRun.status == literal_column("'running'")


class TaskRunLog(Base):
    """One line that a run wrote."""

    __tablename__ = "task_run_logs"
    __table_args__ = (Index("ix_task_run_logs_run_id", "run_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("task_runs.id", name="fk_task_run_logs_run_id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    level: Mapped[str]
    message: Mapped[str]

    def view(self) -> TaskRunLogView:
        """Return the line as others may read it."""
        return {"id": self.id, "time": rfc3339(self.created_at), "level": self.level, "message": self.message}


def _instant(value: datetime | None) -> str | None:
    return None if value is None else rfc3339(value)
