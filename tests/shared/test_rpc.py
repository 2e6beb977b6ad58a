"""Calls over a real bus to a real process: answers, refusals, idempotency keys, and what goes wrong on the way."""

import signal
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from shared.errors import (
    DeadlineExceeded,
    IdempotencyAnswerNotKept,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    InternalError,
    OutcomeUnknown,
    PermissionDenied,
    ServiceError,
)
from shared.link import OutgoingMessage
from shared.passport import InvalidPassport, Passport
from shared.rpc.client import ServiceDown
from shared.rpc.server import UnknownMethod
from shared.rpc.wire import Answer, Call
from tests.shared.conftest import Sample, eventually
from tests.shared.sample_service import ThingExists


def fresh() -> str:
    return uuid.uuid4().hex


def test_a_call_is_answered(sample: Sample, alice: Passport) -> None:
    answer = sample.client.call("sample", "echo", passport=alice, text="höher 更高", number=2**60)
    assert answer.result == {"text": "höher 更高", "number": 2**60}


def test_a_refusal_arrives_as_its_own_class(sample: Sample, alice: Passport) -> None:
    name = fresh()
    sample.client.call("sample", "make_thing", passport=alice, name=name)
    with pytest.raises(ThingExists, match=name):
        sample.client.call("sample", "make_thing", passport=alice, name=name)


def test_a_bug_says_nothing_but_that_it_is_one_and_undoes_all(sample: Sample, alice: Passport) -> None:
    name = fresh()
    with pytest.raises(InternalError) as error:
        sample.client.call("sample", "fail", passport=alice, name=name)
    assert name not in str(error.value.to_wire())
    assert sample.rows(f"select 1 from things where name = '{name}'") == []


def test_a_missing_permission_is_named(sample: Sample, bob: Passport) -> None:
    reader = replace(bob, permissions={"cards": "read"})
    with pytest.raises(PermissionDenied) as refusal:
        sample.client.call("sample", "make_thing", passport=reader, name=fresh())
    assert refusal.value.extra["missing"] == "cards:operate"


def test_a_query_reads_all_of_it_at_one_instant(sample: Sample, alice: Passport) -> None:
    before, after = sample.client.call("sample", "count_things_twice", passport=alice).result
    assert before == after
    assert sample.client.call("sample", "count_things", passport=alice).result == before + 1


def test_a_query_cannot_write(sample: Sample, alice: Passport) -> None:
    with pytest.raises(InternalError):
        sample.client.call("sample", "write_in_query", passport=alice)
    assert sample.rows("select 1 from things where name = 'sly'") == []


def test_a_method_that_does_not_exist_is_refused(sample: Sample, alice: Passport) -> None:
    with pytest.raises(UnknownMethod):
        sample.client.call("sample", "no_such_method", passport=alice)


def test_a_service_without_a_queue_is_down_at_once(sample: Sample, alice: Passport) -> None:
    started = time.monotonic()
    with pytest.raises(ServiceDown):
        sample.client.call("nobody", "echo", passport=alice)
    assert time.monotonic() - started < 1


def test_a_passport_for_another_service_or_with_another_key_is_refused(sample: Sample, alice: Passport) -> None:
    sample.client._keys = {**sample.client._keys, "stolen": b"x" * 32}
    from shared.rpc import client as client_module
    from shared.rpc import wire

    def sealed_right_but_signed_wrong(call: wire.Call, *, key: bytes, correlation_id: str) -> bytes:
        token = wire.sign_passport(call.passport, service="another", key=key)
        content = {"passport": token, "arguments": {}}
        return wire.seal_json(content, key, f"{call.action} {correlation_id}")

    original = client_module.pack_call
    client_module.pack_call = sealed_right_but_signed_wrong
    try:
        with pytest.raises(InvalidPassport):
            sample.client.call("sample", "echo", passport=alice)
    finally:
        client_module.pack_call = original


def test_database_waits_run_side_by_side(sample: Sample, alice: Passport) -> None:
    started = time.monotonic()
    with ThreadPoolExecutor(5) as pool:
        calls = [
            pool.submit(sample.client.call, "sample", "sleep_in_database", passport=alice, seconds=1) for _ in range(5)
        ]
        assert [c.result().result for c in calls] == [1] * 5
    assert time.monotonic() - started < 3  # one after the other would be 5


def test_a_call_ends_at_its_deadline(sample: Sample, alice: Passport) -> None:
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        sample.client.call("sample", "sleep_in_database", passport=alice, seconds=2, timeout=0.3)
    assert time.monotonic() - started < 1.3
    assert sample.client.calls_in_flight == 0


def test_the_same_key_and_request_get_the_first_answer_and_one_effect(sample: Sample, alice: Passport) -> None:
    name, key = fresh(), fresh()
    first = sample.client.call("sample", "make_thing", passport=alice, name=name, idempotency_key=key)
    again = sample.client.call("sample", "make_thing", passport=alice, name=name, idempotency_key=key)
    assert (first.is_replayed, again.is_replayed) == (False, True)
    assert again.result == first.result
    assert len(sample.rows(f"select 1 from things where name = '{name}'")) == 1


def test_the_same_key_with_another_request_is_refused(sample: Sample, alice: Passport) -> None:
    key = fresh()
    sample.client.call("sample", "make_thing", passport=alice, name=fresh(), idempotency_key=key)
    with pytest.raises(IdempotencyKeyReused):
        sample.client.call("sample", "make_thing", passport=alice, name=fresh(), idempotency_key=key)


def test_a_key_belongs_to_its_caller(sample: Sample, alice: Passport, bob: Passport) -> None:
    key = fresh()
    sample.client.call("sample", "make_thing", passport=alice, name=fresh(), idempotency_key=key)
    answer = sample.client.call("sample", "make_thing", passport=bob, name=fresh(), idempotency_key=key)
    assert not answer.is_replayed


def test_a_refusal_is_an_answer_too(sample: Sample, alice: Passport) -> None:
    name, key = fresh(), fresh()
    sample.client.call("sample", "make_thing", passport=alice, name=name)
    with pytest.raises(ThingExists):
        sample.client.call("sample", "make_thing", passport=alice, name=name, idempotency_key=key)
    with sample.engine.begin() as connection:
        connection.exec_driver_sql(f"delete from things where name = '{name}'")
    with pytest.raises(ThingExists) as refusal:
        sample.client.call("sample", "make_thing", passport=alice, name=name, idempotency_key=key)
    assert refusal.value.extra["is_replayed"]


def test_a_key_that_is_being_used_says_so(sample: Sample, alice: Passport) -> None:
    name, key = fresh(), fresh()
    arguments: dict[str, Any] = {"passport": alice, "name": name, "seconds": 1, "idempotency_key": key}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(sample.client.call, "sample", "make_thing", **arguments)
        time.sleep(0.4)
        with pytest.raises(IdempotencyInProgress):
            sample.client.call("sample", "make_thing", **arguments)
        assert first.result().result["name"] == name
    assert sample.client.call("sample", "make_thing", **arguments).is_replayed


def test_one_key_sent_many_times_at_once_has_one_effect(sample: Sample, alice: Passport) -> None:
    name, key = fresh(), fresh()
    outcomes: list[str] = []

    def send() -> None:
        try:
            answer = sample.client.call("sample", "make_thing", passport=alice, name=name, idempotency_key=key)
            outcomes.append("replayed" if answer.is_replayed else "done")
        except IdempotencyInProgress:
            outcomes.append("in progress")

    threads = [threading.Thread(target=send) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("done") == 1
    assert len(outcomes) == 20


def test_an_answer_that_says_nothing_is_replayed_like_any_other(sample: Sample, alice: Passport) -> None:
    name, key = fresh(), fresh()
    first, again = (
        sample.client.call("sample", "make_quietly", passport=alice, name=name, idempotency_key=key) for _ in range(2)
    )
    assert (first, again) == (Answer(None), Answer(None, is_replayed=True))
    assert sample.rows(f"select count(*) from things where name = '{name}'") == [(1,)]


def test_an_answer_with_a_secret_is_not_kept(sample: Sample, alice: Passport) -> None:
    name, key = fresh(), fresh()
    sample.client.call("sample", "make_secret", passport=alice, name=name, idempotency_key=key)
    with pytest.raises(IdempotencyAnswerNotKept):
        sample.client.call("sample", "make_secret", passport=alice, name=name, idempotency_key=key)
    assert "s3cret" not in str(sample.rows("select * from idempotency_keys"))


@pytest.mark.parametrize(
    ("body", "headers", "properties"),
    [
        (b"not sealed", {}, {}),
        (b"not sealed", {}, {"reply_to": "reply.x", "correlation_id": "1"}),
        (b"not sealed", {"method": "echo", "request_id": "r", "deadline": "soon"}, {"reply_to": "x"}),
        (b"[]", {"method": ["echo"], "request_id": 1, "deadline": {}}, {"reply_to": "x", "correlation_id": "1"}),
        (
            b"\x00" * 40,
            {"method": "echo", "request_id": "r", "deadline": "9e9"},
            {"reply_to": "x", "correlation_id": "1"},
        ),
    ],
)
def test_a_malformed_call_goes_to_quarantine_and_ends_no_process(
    sample: Sample, alice: Passport, body: bytes, headers: dict[str, Any], properties: dict[str, str]
) -> None:
    process = sample.processes[-1]
    lines_before = sample.log().count("call quarantined")
    sample.publisher.publish([OutgoingMessage("rpc", "sample", body, headers, properties)])
    eventually(lambda: sample.log().count("call quarantined") > lines_before)
    assert process.poll() is None
    assert sample.client.call("sample", "echo", passport=alice, ok=True).result == {"ok": True}


def test_a_stopping_process_finishes_what_it_began(sample: Sample, alice: Passport) -> None:
    process, name = sample.processes[-1], fresh()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(sample.client.call, "sample", "make_thing", passport=alice, name=name, seconds=2)
        time.sleep(0.5)
        process.terminate()
        assert call.result().result["name"] == name
    assert process.wait(10) == 0
    assert len(sample.rows(f"select 1 from things where name = '{name}'")) == 1


def test_a_killed_process_leaves_no_half_done_call(sample: Sample, alice: Passport) -> None:
    process, name, key = sample.processes[-1], fresh(), fresh()
    arguments: dict[str, Any] = {"passport": alice, "name": name, "seconds": 1, "idempotency_key": key}
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(sample.client.call, "sample", "make_thing", **arguments)
        time.sleep(0.5)
        process.kill()
        process.wait()
        sample.start(alice)
        assert call.result().result["name"] == name  # the broker gave it to the next process
    assert len(sample.rows(f"select 1 from things where name = '{name}'")) == 1


def test_a_killed_process_is_not_guessed_about_without_a_key(sample: Sample, alice: Passport) -> None:
    process, name = sample.processes[-1], fresh()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(sample.client.call, "sample", "make_thing", passport=alice, name=name, seconds=1)
        time.sleep(0.5)
        process.kill()
        process.wait()
        sample.start(alice)
        with pytest.raises(OutcomeUnknown):
            call.result()


def test_a_frozen_process_answers_nobody_late(sample: Sample, alice: Passport) -> None:
    process, name = sample.processes[-1], fresh()
    process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(DeadlineExceeded):
            sample.client.call("sample", "make_thing", passport=alice, name=name, timeout=1)
    finally:
        process.send_signal(signal.SIGCONT)
    assert sample.client.call("sample", "echo", passport=alice).result == {}
    assert sample.rows(f"select 1 from things where name = '{name}'") == []


def test_ping_tells_how_a_process_fares(sample: Sample, alice: Passport) -> None:
    health = sample.client.call("sample", "ping", passport=alice).result
    assert health["database"] is True
    assert health["outbox_pending"] >= 0


def test_errors_cross_the_bus_whole() -> None:
    error = ThingExists("Twice.", errors={"name": ["taken"]}, hint=3)
    back = ServiceError.from_wire(error.to_wire())
    assert isinstance(back, ThingExists)
    assert (back.detail, back.errors, back.extra) == ("Twice.", {"name": ["taken"]}, {"hint": 3})
    stranger = ServiceError.from_wire({**error.to_wire(), "code": "of_another_version"})
    assert (type(stranger).__name__, stranger.code) == ("Conflict", "of_another_version")


def test_the_kept_hash_of_a_request_is_keyed(sample: Sample, alice: Passport) -> None:
    name, key = fresh(), fresh()
    sample.client.call("sample", "make_thing", passport=alice, name=name, idempotency_key=key)
    plain = Call(service="sample", method="make_thing", passport=alice, arguments={"name": name})
    keyed = replace(plain, hash_key=sample.key)
    assert sample.rows(f"select request_hash from idempotency_keys where key = '{key}'") == [(keyed.request_hash,)]
    assert plain.request_hash != keyed.request_hash
