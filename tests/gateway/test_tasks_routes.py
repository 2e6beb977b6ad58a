"""The routes of tasks, and following the log of a run while it runs."""

import orjson
import pytest

from gateway import following
from shared.contracts.tasks import AlreadyRunning, TaskRunNotFound
from shared.errors import PermissionDenied, Unavailable

RUN = {
    "id": "run_1",
    "task": "balance_check",
    "status": "queued",
    "trigger": "manual",
    "attempt": 1,
    "origin_id": "run_1",
    "requested_by": "usr_bob",
    "scheduled_for": None,
    "due_at": "2026-11-24T08:00:00Z",
    "started_at": None,
    "finished_at": None,
    "is_cancel_requested": False,
    "progress": None,
    "result": None,
    "error": None,
}
TASK = {
    "name": "balance_check",
    "description": "",
    "enabled": True,
    "schedule": "10 3 * * *",
    "timezone": "UTC",
    "timeout_s": 600,
    "retries": 2,
    "concurrency": 1,
    "next_run_at": None,
    "last_run": RUN,
    "updated_at": "2026-11-24T08:00:00Z",
}


def line(number):
    return {"id": number, "time": "2026-11-24T08:00:00Z", "level": "info", "message": f"line {number}"}


def test_a_task_is_shown_with_its_last_run(gateway, services):
    services.answer("tasks", "get_task", TASK)
    assert gateway.dora.get("/api/v1/tasks/balance_check").json == TASK


@pytest.mark.parametrize("body", [None, {}, {"params": {}}])
def test_a_run_by_hand_is_accepted_with_or_without_parameters(gateway, services, body):
    services.answer("tasks", "run_task", RUN)
    answer = gateway.bob.post("/api/v1/tasks/balance_check/run", json=body)
    assert (answer.status_code, answer.json) == (202, RUN)


def test_a_second_run_is_a_conflict_that_names_the_first(gateway, services):
    services.answer("tasks", "run_task", AlreadyRunning(run_id="run_1"))
    answer = gateway.bob.post("/api/v1/tasks/balance_check/run")
    assert (answer.status_code, answer.json["code"], answer.json["run_id"]) == (409, "already_running", "run_1")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"timeout_s": 0}, "timeout_s"),
        ({"retries": 11}, "retries"),
        ({"concurrency": "2"}, "concurrency"),
        ({"enabled": True}, "enabled"),
        ({"schedule": None}, "schedule"),
    ],
)
def test_a_wrong_change_is_refused(gateway, body, field):
    answer = gateway.alice.patch("/api/v1/tasks/balance_check", json=body)
    assert (answer.status_code, list(answer.json["errors"])) == (422, [field])


def test_only_what_a_change_names_reaches_the_service(gateway, services):
    services.answer("tasks", "update_task", TASK)
    assert gateway.alice.patch("/api/v1/tasks/balance_check", json={"retries": 3}).status_code == 200
    [call] = services.calls_of("tasks", "update_task")
    assert call.arguments == {"name": "balance_check", "retries": 3}


def test_preview_is_no_task(gateway, services):
    preview = {"schedule": "* * * * *", "timezone": "UTC", "times": [], "local_times": []}
    services.answer("tasks", "preview_schedule", preview)
    assert gateway.dora.get("/api/v1/tasks/preview?schedule=*+*+*+*+*").json == preview
    assert gateway.dora.get("/api/v1/tasks/preview").status_code == 422


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "/tasks/x", {"alice"}),
        ("POST", "/tasks/x/enable", {"alice"}),
        ("POST", "/tasks/x/disable", {"alice"}),
        ("POST", "/tasks/x/run", {"alice", "bob"}),
        ("POST", "/task-runs/x/cancel", {"alice", "bob"}),
    ],
)
def test_each_route_is_for_whom_it_says(gateway, services, method, path, allowed):
    for name in ("update_task", "enable_task", "disable_task", "run_task", "cancel_task_run"):
        services.answer("tasks", name, TASK | RUN)
    for person in ("alice", "bob", "dora"):
        client = getattr(gateway, person)
        json = {} if method == "PATCH" else None
        assert (client.open(f"/api/v1{path}", method=method, json=json).status_code != 403) is (person in allowed)


def test_the_lines_of_a_run_are_a_list(gateway, services):
    services.answer("tasks", "list_task_run_logs", {"items": [line(1)], "next_cursor": None, "run_status": "running"})
    answer = gateway.alice.get("/api/v1/task-runs/run_1/logs")
    assert answer.json == {"items": [line(1)], "next_cursor": None}
    csv = gateway.alice.get("/api/v1/task-runs/run_1/logs", headers={"Accept": "text/csv"})
    assert csv.text.splitlines() == ["id,time,level,message", "1,2026-11-24T08:00:00Z,info,line 1"]


@pytest.fixture
def follow(gateway, monkeypatch):
    """Follow the log of a run. Returns: its events as (name, id, data), read to their end."""
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.001)

    def read(**headers):
        answer = gateway.alice.get("/api/v1/task-runs/run_1/logs?follow=true", headers=headers)
        assert (answer.status_code, answer.mimetype) == (200, "text/event-stream")
        events = []
        for block in answer.text.split("\n\n"):
            fields = dict(part.split(": ", 1) for part in block.splitlines() if not part.startswith(":"))
            if fields:
                events.append((fields["event"], fields.get("id"), orjson.loads(fields["data"])))
        return events

    return read


def pages(services, *answers):
    """Answer one look after the other. Returns: the cursors by which was looked."""
    left, cursors = list(answers), []

    def answer(run_id, limit, cursor):
        cursors.append(cursor)
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    services.answer("tasks", "list_task_run_logs", answer)
    return cursors


def page(*numbers, status="running", next_cursor=None):
    return {"items": [line(n) for n in numbers], "next_cursor": next_cursor, "run_status": status}


def test_a_followed_log_sends_each_line_once_and_ends_with_the_run(services, follow):
    cursors = pages(services, page(1, 2), page(), Unavailable(), page(3), page(status="succeeded"))
    assert follow() == [
        ("line", "1", line(1)),
        ("line", "2", line(2)),
        ("line", "3", line(3)),
        ("end", None, {"status": "succeeded"}),
    ]
    assert cursors == [None, "WzJd", "WzJd", "WzJd", "WzNd"]


def test_a_browser_that_comes_back_misses_no_line(services, follow):
    cursors = pages(services, page(3, status="failed"))
    assert follow(**{"Last-Event-ID": "2"}) == [("line", "3", line(3)), ("end", None, {"status": "failed"})]
    assert cursors == ["WzJd"]


def test_a_stream_ends_when_its_reader_may_no_longer_read(services, follow):
    pages(services, page(1), PermissionDenied("No longer."))
    assert follow()[-1] == ("refused", None, {"code": "permission_denied", "detail": "No longer."})


def test_a_stream_of_what_does_not_exist_is_a_plain_refusal(gateway, services):
    services.answer("tasks", "list_task_run_logs", TaskRunNotFound())
    answer = gateway.alice.get("/api/v1/task-runs/run_x/logs?follow=true")
    assert (answer.status_code, answer.json["code"]) == (404, "task_run_not_found")
