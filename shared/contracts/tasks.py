"""What others may know of tasks: their views, their errors, their events."""

from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypedDict

from shared.errors import Conflict, InvalidRequest, NotFound
from shared.events import Event

RUN_STATUSES: Final = ("queued", "running", "succeeded", "failed", "timed_out", "cancelled", "lost")
FINAL_RUN_STATUSES: Final = frozenset(RUN_STATUSES[2:])
TRIGGERS: Final = ("schedule", "manual", "retry")


class ProgressView(TypedDict):
    """How far a run is."""

    done: int
    total: int | None
    message: str


class TaskRunView(TypedDict):
    """One run of a task. A run that is tried again is a new run, with the next `attempt`, of the same `origin_id`."""

    id: str
    task: str
    status: str
    trigger: str
    attempt: int
    origin_id: str
    requested_by: str | None
    scheduled_for: str | None
    due_at: str
    started_at: str | None
    finished_at: str | None
    is_cancel_requested: bool
    progress: ProgressView | None
    result: dict[str, Any] | None
    error: str | None


class TaskRunPage(TypedDict):
    """One page of runs, newest first."""

    items: list[TaskRunView]
    next_cursor: str | None


class TaskView(TypedDict):
    """A task, when it runs next and how it ran last."""

    name: str
    description: str
    enabled: bool
    schedule: str
    timezone: str
    timeout_s: int
    retries: int
    concurrency: int
    next_run_at: str | None
    last_run: TaskRunView | None
    updated_at: str


class TaskPage(TypedDict):
    """All tasks, by name."""

    items: list[TaskView]
    next_cursor: str | None


class SchedulePreview(TypedDict):
    """When a schedule fires next: the instants in UTC, and as the clocks of the time zone show them."""

    schedule: str
    timezone: str
    times: list[str]
    local_times: list[str]


class TaskRunLogView(TypedDict):
    """One line that a run wrote."""

    id: int
    time: str
    level: str
    message: str


class TaskRunLogPage(TypedDict):
    """Lines of a run in the order that they were written; `run_status` tells whether more will come."""

    items: list[TaskRunLogView]
    next_cursor: str | None
    run_status: str


class TaskNotFound(NotFound):
    """There is no such task."""


class TaskRunNotFound(NotFound):
    """There is no such run."""


class InvalidSchedule(InvalidRequest):
    """A schedule is five cron fields: minute, hour, day of month, month, day of week."""


class UnknownTimeZone(InvalidRequest):
    """A time zone is a name of the IANA database, such as Europe/Berlin."""


class UnknownTaskParameter(InvalidRequest):
    """The task has no such parameter."""


class AlreadyRunning(Conflict):
    """The task is running already, as often as it may."""


class RunAlreadyFinished(Conflict):
    """The run has finished already."""


class LeaseLost(Conflict):
    """The run was taken from this instance, which must write nothing more about it."""


@dataclass(frozen=True, kw_only=True)
class _OfTask:
    """What every event about one task says."""

    service: ClassVar[str] = "tasks"
    resource_type: ClassVar[str] = "task"

    task_id: str
    changes: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _OfRun:
    """What every event about one run of a task says."""

    service: ClassVar[str] = "tasks"
    resource_type: ClassVar[str] = "task_run"

    task_run_id: str
    task: str


@dataclass(frozen=True, kw_only=True)
class TaskUpdated(_OfTask, Event):
    """A task's schedule, or how it runs, changed."""


@dataclass(frozen=True, kw_only=True)
class TaskEnabled(_OfTask, Event):
    """A task runs by its schedule from now on."""


@dataclass(frozen=True, kw_only=True)
class TaskDisabled(_OfTask, Event):
    """A task no longer runs by itself."""


@dataclass(frozen=True, kw_only=True)
class TaskRunRequested(_OfRun, Event):
    """Somebody asked for a run by hand."""


@dataclass(frozen=True, kw_only=True)
class TaskRunStarted(_OfRun, Event):
    """An instance took a run and works on it."""

    trigger: str
    attempt: int
    scheduled_for: str | None


@dataclass(frozen=True, kw_only=True)
class TaskRunSucceeded(_OfRun, Event):
    """A run did what it should."""

    attempt: int
    result: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TaskRunFailed(_OfRun, Event):
    """A run ended otherwise: `status` is failed, timed_out or lost; `retry_at` is when the next attempt is due."""

    attempt: int
    status: str
    reason: str
    retry_at: str | None


@dataclass(frozen=True, kw_only=True)
class TaskRunCancelled(_OfRun, Event):
    """A run was cancelled, before or while it ran."""

    attempt: int
