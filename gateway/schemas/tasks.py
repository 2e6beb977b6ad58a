"""Tasks, their runs and what these wrote, as the API shows and takes them."""

from gateway.schemas import fields
from gateway.schemas.base import PageQuery, Schema
from shared.contracts.tasks import RUN_STATUSES, TRIGGERS


class ProgressSchema(Schema):
    """How far a run is."""

    done = fields.Integer(required=True)
    total = fields.Integer(required=True, allow_none=True)
    message = fields.Text(required=True)


class TaskRunSchema(Schema):
    """One attempt at a task. A run that is tried again is a new run of the same `origin_id`.

    `progress`, `result` and `error` reach over all merchants, and are null to who sees some of them only.
    """

    id = fields.Text(required=True)
    task = fields.Text(required=True)
    status = fields.Word(RUN_STATUSES, required=True)
    trigger = fields.Word(TRIGGERS, required=True)
    attempt = fields.Integer(required=True)
    origin_id = fields.Text(required=True)
    requested_by = fields.Text(required=True, allow_none=True)
    scheduled_for = fields.Timestamp(required=True, allow_none=True)
    due_at = fields.Timestamp(required=True)
    started_at = fields.Timestamp(required=True, allow_none=True)
    finished_at = fields.Timestamp(required=True, allow_none=True)
    is_cancel_requested = fields.Boolean(required=True)
    progress = fields.Nested(ProgressSchema, required=True, allow_none=True)
    result = fields.Dict(required=True, allow_none=True)
    error = fields.Text(required=True, allow_none=True, length_max=10_000)


class TaskSchema(Schema):
    """A task, when it runs next and how it ran last."""

    name = fields.Text(required=True)
    description = fields.Text(required=True)
    enabled = fields.Boolean(required=True)
    schedule = fields.Text(required=True)
    timezone = fields.Text(required=True)
    timeout_s = fields.Integer(required=True)
    retries = fields.Integer(required=True)
    concurrency = fields.Integer(required=True)
    next_run_at = fields.Timestamp(required=True, allow_none=True)
    last_run = fields.Nested(TaskRunSchema, required=True, allow_none=True)
    updated_at = fields.Timestamp(required=True)


class ScheduleField(fields.Text):
    """Five cron fields: minute, hour, day of month, month, day of week."""

    def __init__(self, *, required: bool = False) -> None:
        super().__init__(length_min=9, length_max=200, required=required, metadata={"example": "10 3 * * *"})


class ZoneField(fields.Text):
    """A name of the IANA time zone database."""

    def __init__(self) -> None:
        super().__init__(length_min=1, length_max=64, metadata={"example": "Europe/Berlin"})


class TaskChangesSchema(Schema):
    """What of a task changes; what is left out stays. A new schedule counts from now on."""

    schedule = ScheduleField()
    timezone = ZoneField()
    timeout_s = fields.Integer(at_least=1, at_most=86_400)
    retries = fields.Integer(at_least=0, at_most=10)
    concurrency = fields.Integer(at_least=1, at_most=10)


class RunRequestSchema(Schema):
    """What a run by hand is told."""

    params = fields.Dict(keys=fields.Text())


class SchedulePreviewQuery(Schema):
    """Which schedule, in which time zone: UTC unless another is named."""

    schedule = ScheduleField(required=True)
    timezone = fields.Text(length_min=1, length_max=64, load_default="UTC", metadata={"example": "Europe/Berlin"})


class SchedulePreviewSchema(Schema):
    """The next ten times at which a schedule fires; `local_times` as the clocks of its time zone show them."""

    schedule = fields.Text(required=True)
    timezone = fields.Text(required=True)
    times = fields.List(fields.Timestamp(), required=True)
    local_times = fields.List(fields.Timestamp(), required=True)


class TaskRunQuery(PageQuery):
    """Which runs of a task."""

    status = fields.Word(RUN_STATUSES, load_default=None)


class TaskRunLogSchema(Schema):
    """One line that a run wrote."""

    id = fields.Integer(required=True)
    time = fields.Timestamp(required=True)
    level = fields.Text(required=True)
    message = fields.Text(required=True, length_max=2_000)


class TaskRunLogPageSchema(Schema):
    """Lines of a run, oldest first."""

    items = fields.List(fields.Nested(TaskRunLogSchema), required=True)
    next_cursor = fields.Text(required=True, allow_none=True)


class TaskRunLogQuery(PageQuery):
    """Which lines of a run; `follow=true` sends those that come, as server-sent events, until the run ends."""

    follow = fields.QueryBoolean(load_default=False)
