"""Tasks: when they run, running them by hand, their runs and what these wrote."""

from typing import Any

from flask import Response

from gateway import answers, paging
from gateway.blueprint import Blueprint
from gateway.following import EVENT_SCHEMA, follow_log
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.base import PageQuery
from gateway.schemas.tasks import (
    RunRequestSchema,
    SchedulePreviewQuery,
    SchedulePreviewSchema,
    TaskChangesSchema,
    TaskRunLogPageSchema,
    TaskRunLogQuery,
    TaskRunLogSchema,
    TaskRunQuery,
    TaskRunSchema,
    TaskSchema,
)
from gateway.terms import needs

blueprint = Blueprint("tasks", __name__, description="What runs by a schedule or by hand.")


@blueprint.get("/tasks")
@needs("tasks:read")
@blueprint.arguments(PageQuery, location="query")
@blueprint.listing(TaskSchema)
def list_tasks(query: dict[str, Any]) -> Listing:
    """List the tasks, by name."""
    return listing("tasks", "list_tasks", **query)


@blueprint.get("/tasks/preview")
@needs("tasks:read")
@blueprint.arguments(SchedulePreviewQuery, location="query")
@blueprint.response(200, SchedulePreviewSchema)
def preview_schedule(query: dict[str, Any]) -> Any:
    """Show the next ten times at which a schedule would fire."""
    return call("tasks", "preview_schedule", **query)


@blueprint.get("/tasks/<name>")
@needs("tasks:read")
@blueprint.response(200, TaskSchema)
def get_task(name: str) -> Any:
    """Show one task."""
    return call("tasks", "get_task", name=name)


@blueprint.patch("/tasks/<name>")
@needs("tasks:admin")
@blueprint.arguments(TaskChangesSchema)
@blueprint.response(200, TaskSchema)
def update_task(body: dict[str, Any], name: str) -> Any:
    """Change when and how a task runs."""
    return call("tasks", "update_task", name=name, **body)


@blueprint.post("/tasks/<name>/enable")
@needs("tasks:admin")
@blueprint.response(200, TaskSchema)
def enable_task(name: str) -> Any:
    """Let a task run by its schedule, from its next time on."""
    return call("tasks", "enable_task", name=name)


@blueprint.post("/tasks/<name>/disable")
@needs("tasks:admin")
@blueprint.response(200, TaskSchema)
def disable_task(name: str) -> Any:
    """Stop a task from running by itself."""
    return call("tasks", "disable_task", name=name)


@blueprint.post("/tasks/<name>/run")
@needs("tasks:operate")
@blueprint.arguments(RunRequestSchema)
@blueprint.response(202, TaskRunSchema)
def run_task(body: dict[str, Any], name: str) -> Any:
    """Run a task by hand; it begins within about a second."""
    return call("tasks", "run_task", name=name, **body)


@blueprint.get("/tasks/<name>/runs")
@needs("tasks:read")
@blueprint.arguments(TaskRunQuery, location="query")
@blueprint.listing(TaskRunSchema)
def list_task_runs(query: dict[str, Any], name: str) -> Listing:
    """List the runs of a task, newest first."""
    return listing("tasks", "list_task_runs", name=name, **query)


@blueprint.get("/task-runs/<run_id>")
@needs("tasks:read")
@blueprint.response(200, TaskRunSchema)
def get_task_run(run_id: str) -> Any:
    """Show one run."""
    return call("tasks", "get_task_run", run_id=run_id)


@blueprint.get("/task-runs/<run_id>/logs")
@needs("tasks:read")
@blueprint.arguments(TaskRunLogQuery, location="query")
@blueprint.response(200, TaskRunLogPageSchema)
@blueprint.alt_response(200, schema={"type": "string"}, content_type="text/csv", success=True)
@blueprint.alt_response(200, schema=EVENT_SCHEMA, content_type="text/event-stream", success=True)
def list_task_run_logs(query: dict[str, Any], run_id: str) -> Response:
    """List the lines that a run wrote, oldest first, or follow them until the run ends."""
    if query.pop("follow"):
        return follow_log(run_id, cursor=query["cursor"])
    wanted = listing("tasks", "list_task_run_logs", run_id=run_id, **query)
    schema = TaskRunLogSchema()
    return paging.respond(wanted, columns=list(schema.dump_fields), pick=answers.pick_of(schema), name="task-run-logs")


@blueprint.post("/task-runs/<run_id>/cancel")
@needs("tasks:operate")
@blueprint.response(200, TaskRunSchema)
def cancel_task_run(run_id: str) -> Any:
    """Cancel a run: at once while it waits, at the end of its present step while it runs."""
    return call("tasks", "cancel_task_run", run_id=run_id)
