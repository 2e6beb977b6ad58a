"""Events over a real bus: once each, whatever is repeated, killed or malformed."""

import time
import uuid

import orjson
import pytest
from amqp.basic_message import Message
from kombu import Connection

from shared.consuming import EventHandler
from shared.database import DatabaseUnavailable
from shared.events import Envelope
from shared.link import OutgoingMessage
from shared.passport import Passport
from shared.topology import Subscription
from tests.shared.conftest import Sample, eventually


def fresh(prefix: str = "thing") -> str:
    return f"{prefix}-{uuid.uuid4().hex}"


def make(sample: Sample, alice: Passport, name: str) -> None:
    sample.client.call("sample", "make_thing", passport=alice, name=name)


def heard(sample: Sample, name: str, handler: str = "one") -> int:
    return len(sample.rows(f"select 1 from heard where name = '{name}' and handler = '{handler}'"))


def envelope(name: str) -> Envelope:
    return {
        "event_id": uuid.uuid4().hex,
        "event": "ThingMade",
        "service": "sample",
        "occurred_at": "2026-11-24T00:00:00Z",
        "request_id": "req_x",
        "actor": {"id": "usr_x", "name": "Xenia", "type": "user"},
        "ip": "",
        "user_agent": "",
        "action": "sample.make_thing",
        "resource_type": "thing",
        "resource_id": name,
        "merchant_id": None,
        "payload": {"thing_id": name},
    }


def outgoing(content: object) -> OutgoingMessage:
    return OutgoingMessage("events", "sample.ThingMade", orjson.dumps(content))


def test_an_event_reaches_each_handler_with_its_actor(sample: Sample, alice: Passport) -> None:
    name = fresh()
    make(sample, alice, name)
    eventually(lambda: heard(sample, name) and heard(sample, name, "all"))
    assert sample.rows(f"select distinct actor from heard where name = '{name}'") == [("Alice",)]
    eventually(lambda: sample.rows("select count(*) from outbox") == [(0,)])


def test_an_event_delivered_ten_times_has_its_effect_once(sample: Sample) -> None:
    name = fresh()
    sample.publisher.publish([outgoing(envelope(name))])
    same = envelope(name)
    sample.publisher.publish([outgoing(same)] * 10)
    marker = fresh()
    sample.publisher.publish([outgoing(envelope(marker))])
    eventually(lambda: heard(sample, marker) and heard(sample, marker, "all"))
    assert (heard(sample, name), heard(sample, name, "all")) == (2, 2)


def test_an_event_whose_handler_breaks_comes_again_later_and_the_others_do_not_wait(
    sample: Sample, alice: Passport
) -> None:
    poison, good = fresh("poison"), fresh()
    make(sample, alice, poison)
    make(sample, alice, good)
    eventually(lambda: heard(sample, good))
    assert heard(sample, poison) == 0  # its effect was undone with it
    eventually(lambda: sample.log().count('"to": "retry.5000"') >= 1)
    assert heard(sample, poison, "all") == 1


def test_one_bad_event_does_not_hold_up_its_batch(sample: Sample) -> None:
    names = [fresh() for _ in range(20)]
    sample.publisher.publish([outgoing(envelope(n)) for n in (*names[:10], "batch-poison", *names[10:])])
    eventually(lambda: all(heard(sample, name, "all") == 1 for name in names))
    assert heard(sample, "batch-poison", "all") == 0


def test_what_is_no_event_goes_to_quarantine(sample: Sample, alice: Passport) -> None:
    before = sample.log().count('"to": "quarantine"')
    wrong_actor = {**envelope(fresh()), "actor": "me"}
    sample.publisher.publish(
        [
            OutgoingMessage("events", "sample.ThingMade", body)
            for body in (b"\xff\xfe", b"[]", b"{}", b"null", orjson.dumps(wrong_actor))
        ]
    )
    eventually(lambda: sample.log().count('"to": "quarantine"') >= before + 10)  # both handlers heard the five
    assert sample.processes[-1].poll() is None


def test_a_handler_killed_in_the_middle_has_its_effect_once(sample: Sample, alice: Passport) -> None:
    name = fresh("slow")
    make(sample, alice, name)
    time.sleep(0.5)
    process = sample.processes[-1]
    process.kill()
    process.wait()
    sample.start(alice)
    eventually(lambda: heard(sample, name))
    time.sleep(0.5)
    assert heard(sample, name) == 1


def test_a_killed_relay_loses_nothing(sample: Sample, alice: Passport) -> None:
    names = [fresh() for _ in range(50)]
    for name in names[:25]:
        make(sample, alice, name)
    process = sample.processes[-1]
    process.kill()
    process.wait()
    sample.start(alice)
    for name in names[25:]:
        make(sample, alice, name)
    eventually(lambda: all(heard(sample, name) == 1 and heard(sample, name, "all") == 1 for name in names))


def test_a_tick_ticks(sample: Sample) -> None:
    (before,) = sample.rows("select count(*) from ticks")
    eventually(lambda: sample.rows("select count(*) from ticks")[0][0] >= before[0] + 3)


def test_the_quarantine_keeps_what_it_got(sample: Sample) -> None:
    sample.publisher.publish([OutgoingMessage("events", "sample.ThingMade", b"keep me")])
    eventually(lambda: "keep me" in _drained(sample))


def _drained(sample: Sample) -> str:
    with Connection(sample.amqp_url) as connection:
        bodies = []
        while (message := connection.default_channel.basic_get("quarantine", no_ack=True)) is not None:
            bodies.append(str(message.body))
        return " ".join(bodies)


def test_a_database_that_is_away_costs_an_event_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = EventHandler(Subscription(("sample.ThingMade",)))
    handler.queue = "events.sample.on_thing_made"
    moves: list[tuple[str, int]] = []
    monkeypatch.setattr(
        handler, "_move", lambda _message, exchange, _key, _reason, attempt=0: moves.append((exchange, attempt))
    )
    message = Message(b"", application_headers={"x-attempt": 4})
    handler._give_back(message, envelope("x"), DatabaseUnavailable())
    handler._give_back(message, envelope("x"), ValueError("poison"))
    assert moves == [("retry.5000", 4), ("retry.600000", 5)]


def test_a_batch_takes_along_what_is_on_its_way_and_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = EventHandler(Subscription(("#",), batch=3))
    handler._deliveries.append(Message(b"1"))
    monkeypatch.setattr("shared.consuming.time.sleep", lambda _seconds: handler._deliveries.append(Message(b"2")))
    handler._gather()
    assert len(handler._deliveries) == 3

    handler._deliveries.pop()
    clock = iter(range(100))
    monkeypatch.setattr("shared.consuming.time.sleep", lambda _seconds: None)
    monkeypatch.setattr("shared.consuming.time.monotonic", lambda: next(clock))
    handler._gather()
    assert len(handler._deliveries) == 2


def test_an_event_that_is_taken_alone_waits_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = EventHandler(Subscription(("sample.ThingMade",)))
    handler._deliveries.append(Message(b"1"))
    monkeypatch.setattr("shared.consuming.time.sleep", lambda _seconds: pytest.fail("it waited"))
    handler._gather()
