"""The log of a run while it runs, as server-sent events: `line` for each line, `end` with the run's status.

Each look asks again who the caller is and whether they may: a stream outlives no session. A stream is closed after
`FOLLOW_SECONDS_MAX`; a browser comes back by itself with the last line's id and misses none.
"""

import time
from collections.abc import Iterator
from typing import Any

from flask import Response, request, stream_with_context

from gateway import answers, authorization
from gateway.context import context
from gateway.rpc import call
from shared.contracts.tasks import FINAL_RUN_STATUSES, TaskRunLogPage
from shared.errors import ServiceError, Unavailable
from shared.paging import LIMIT_MAX, encode_cursor

LOOK_SECONDS = 1.0
FOLLOW_SECONDS_MAX = 600.0
EVENT_SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string", "enum": ["line", "end", "refused"]},
        "data": {"type": "string", "description": "JSON: the line, {status}, or {code, detail}."},
    },
    "required": ["event", "data"],
}


def follow_log(run_id: str, *, cursor: str | None) -> Response:
    """Answer with the lines of a run as they come.

    cursor: where to begin; the header Last-Event-ID, as browsers send it, goes before.
    Raises: what the first look raises, before anything is sent.
    """
    last_id = request.headers.get("Last-Event-ID", "")
    if last_id.isascii() and last_id.isdigit() and len(last_id) < 19:  # else it is none of ours
        cursor = encode_cursor([int(last_id)])
    first = _look(run_id, cursor)
    response = Response(stream_with_context(_events(run_id, first, cursor)), mimetype="text/event-stream")
    response.headers["X-Accel-Buffering"] = "no"  # a proxy that buffers would hold the lines back
    return response


def _look(run_id: str, cursor: str | None) -> TaskRunLogPage:
    page: TaskRunLogPage = call("tasks", "list_task_run_logs", run_id=run_id, limit=LIMIT_MAX, cursor=cursor)
    return page


def _events(run_id: str, page: TaskRunLogPage | None, cursor: str | None) -> Iterator[str]:
    give_up_at = time.monotonic() + FOLLOW_SECONDS_MAX
    while True:
        if page is not None:
            for line in page["items"]:
                yield _event("line", line, event_id=line["id"])
                cursor = encode_cursor([line["id"]])
            if page["next_cursor"] is None and page["run_status"] in FINAL_RUN_STATUSES:
                yield _event("end", {"status": page["run_status"]})
                return
        if time.monotonic() > give_up_at:
            return
        if page is None or page["next_cursor"] is None:
            yield ": still here\n\n"
            time.sleep(LOOK_SECONDS)
        try:
            context().renew_deadline()
            authorization.check_again()
            page = _look(run_id, cursor)
        except Unavailable:
            page = None  # it comes back, or the stream's time ends
        except ServiceError as refusal:
            yield _event("refused", {"code": refusal.code, "detail": refusal.detail})
            return


def _event(name: str, data: Any, *, event_id: int | None = None) -> str:
    lines = [f"event: {name}", f"data: {answers.json_bytes(data).decode()}"]
    if event_id is not None:
        lines.insert(0, f"id: {event_id}")
    return "\n".join(lines) + "\n\n"
