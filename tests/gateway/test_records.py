"""Each call and each failure is recorded once, without secrets, and outlives a broker or a process that does not."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.records import Recorder
from gateway.spool import BATCH_RECORDS, Spool, SpoolFull
from shared import errors
from shared.events import event_of
from tests.gateway.conftest import FakePublisher, Gateway
from tests.gateway.people import FakeServices

Records = Callable[[], list[dict[str, Any]]]


def test_call_is_recorded(gateway: Gateway, services: FakeServices, records: Records) -> None:
    services.answer("cards", "break_lamp", {"id": "l1"})
    gateway.alice.post(
        "/api/v1/lamps/l1/break",
        json={"reason": "old"},
        headers={"X-Request-ID": "req-7", "User-Agent": "curl/8"},
    )

    (record,) = records()

    assert (record["service"], record["event"], record["action"]) == ("gateway", "ApiCalled", "lamps.break_lamp")
    assert record["actor"] == {"id": "usr_alice", "name": "alice", "type": "user"}
    assert (record["ip"], record["user_agent"], record["request_id"]) == ("127.0.0.1", "curl/8", "req-7")
    assert (record["resource_type"], record["resource_id"]) == ("lamp", "l1")
    payload = record["payload"]
    assert (payload["method"], payload["route"]) == ("POST", "/api/v1/lamps/{lamp_id}/break")
    assert (payload["path"], payload["status"], payload["outcome"]) == ("/api/v1/lamps/l1/break", 200, "success")
    assert payload["duration_ms"] > 0
    assert payload["permission"] == "cards:admin"
    assert event_of(record) is not None  # type: ignore[arg-type]


def test_merchant_is_told(gateway: Gateway, services: FakeServices, records: Records) -> None:
    services.answer("cards", "create_lamp", {"id": "l1"})
    body = {"name": "a", "amount": "1", "currency": "CNY", "merchant_id": "mer_aurora"}
    gateway.alice.post("/api/v1/lamps", json=body, headers={"Idempotency-Key": "k"})
    assert records()[0]["merchant_id"] == "mer_aurora"


def test_merchant_whom_the_caller_does_not_see_gets_no_row_in_its_log(
    gateway: Gateway, services: FakeServices, records: Records
) -> None:
    services.answer("cards", "list_lamps", {"items": [], "next_cursor": None})
    services.answer("cards", "create_lamp", errors.NotFound())
    body = {"name": "a", "amount": "1", "currency": "CNY", "merchant_id": "mer_aurora"}
    gateway.charlie.post("/api/v1/lamps", json=body, headers={"Idempotency-Key": "k"})
    gateway.charlie.get("/api/v1/lamps?merchant_id=mer_aurora")
    gateway.nobody.get("/api/v1/lamps?merchant_id=mer_aurora")
    assert [record["merchant_id"] for record in records()] == [None, None, None]


@pytest.mark.parametrize(
    ("error", "outcome", "events"),
    [
        (errors.PermissionDenied(), "denied", ["ApiCalled"]),
        (errors.Conflict(), "refused", ["ApiCalled"]),
        (errors.Unavailable(), "failed", ["ApiCalled", "SystemErrorOccurred"]),
        (RuntimeError("bug"), "failed", ["ApiCalled", "SystemErrorOccurred"]),
    ],
)
def test_outcome_is_told_and_failures_twice(
    gateway: Gateway, services: FakeServices, records: Records, error: Exception, outcome: str, events: list[str]
) -> None:
    services.answer("users", "show_my_lamp", error)
    gateway.alice.get("/api/v1/lamps/mine")
    assert [record["event"] for record in records()] == events
    assert {record["payload"]["outcome"] for record in records()} == {outcome}
    if outcome == "failed":
        assert records()[1]["payload"]["error"] == type(error).__name__


def test_refused_callers_are_recorded_too(gateway: Gateway, records: Records) -> None:
    gateway.nobody.get("/api/v1/lamps")
    gateway.nobody.get("/api/v1/no-such-route")
    assert [(r["actor"]["id"], r["payload"]["status"]) for r in records()] == [("anonymous", 401), ("anonymous", 404)]


def test_health_checks_are_no_api_calls(gateway: Gateway, services: FakeServices, records: Records) -> None:
    services.is_up = False
    for path in ("/healthz", "/metrics", "/", "/openapi.json"):
        gateway.nobody.get(path)
    assert records() == []


def test_secrets_are_not_recorded(gateway: Gateway, services: FakeServices, records: Records) -> None:
    token = services.token("alice")
    gateway.alice.post(f"/api/v1/lamps/{token}/break?password=hunter2", json={"reason": "hunter2"})
    gateway.alice.post("/api/v1/lamps/4111111111111111/light", headers={"User-Agent": f"Bearer {token}"})
    text = orjson.dumps(records()).decode()
    for secret in (token, "hunter2", "4111111111111111"):
        assert secret not in text


def test_record_of_a_stream_is_written_when_it_ends(gateway: Gateway, services: FakeServices, records: Records) -> None:
    services.answer("cards", "list_lamps", {"items": [], "next_cursor": None})
    response = gateway.alice.get("/api/v1/lamps", headers={"Accept": "text/csv"}, buffered=True)
    response.close()
    assert [record["action"] for record in records()] == ["lamps.list_lamps"]


def test_records_wait_while_the_bus_is_away(
    gateway: Gateway, recorder: Recorder, publisher: FakePublisher, records: Records
) -> None:
    publisher.failure = errors.Unavailable()
    for _ in range(3):
        gateway.nobody.get("/api/v1/lamps")
    with pytest.raises(errors.Unavailable):
        recorder.carry_once()
    gateway.nobody.get("/api/v1/lamps")
    publisher.failure = None
    assert len(records()) == 4
    recorder.carry_once()
    assert len(publisher.published) == 4


def test_next_process_carries_what_the_last_one_left(tmp_path: Path, publisher: FakePublisher) -> None:
    publisher.failure = errors.Unavailable()
    first = Recorder(Spool(str(tmp_path)), publisher)
    first.record({"event_id": "1", "service": "gateway", "event": "ApiCalled"})  # type: ignore[typeddict-item]
    first.stop()

    publisher.failure = None
    second = Recorder(Spool(str(tmp_path)), publisher)
    second.carry_once()
    second.stop()

    assert [record["event_id"] for record in publisher.published] == ["1"]
    assert list(tmp_path.iterdir()) == []


def _write_and_die(root: str) -> None:
    spool = Spool(root)
    for number in range(3):
        spool.append(b'{"n": %d}' % number)
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_process_loses_nothing(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_write_and_die, args=(str(tmp_path),))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL

    taken: list[bytes] = []
    Spool(str(tmp_path)).adopt(taken.extend)
    assert taken == [b'{"n": 0}', b'{"n": 1}', b'{"n": 2}']


def test_living_process_keeps_its_records_to_itself(tmp_path: Path) -> None:
    alive = Spool(str(tmp_path))
    alive.append(b"mine")
    taken: list[bytes] = []
    Spool(str(tmp_path)).adopt(taken.extend)
    assert taken == []
    alive.hand_over(taken.extend)
    assert taken == [b"mine"]


def test_batches_are_bounded_and_in_order(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    for number in range(BATCH_RECORDS * 2 + 1):
        spool.append(b"%d" % number)
    batches: list[list[bytes]] = []
    spool.hand_over(batches.append)
    assert [len(batch) for batch in batches] == [BATCH_RECORDS, BATCH_RECORDS, 1]
    assert [int(line) for batch in batches for line in batch] == list(range(BATCH_RECORDS * 2 + 1))
    assert spool.bytes_waiting == 0


def test_spool_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.spool.SPOOL_BYTES_MAX", 10)
    spool = Spool(str(tmp_path))
    spool.append(b"0123456789")
    with pytest.raises(SpoolFull):
        spool.append(b"x")


def test_full_disk_does_not_stop_calls(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_self: Spool, _record: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Spool, "append", full)
    assert gateway.nobody.get("/api/v1/lamps").status_code == 401
