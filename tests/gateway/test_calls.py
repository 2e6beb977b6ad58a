"""Calls to services: deadlines, breakers, bulkheads. One that does not answer slows nobody else."""

import threading
import time
from typing import Any

import pytest

from gateway.breaker import FAILURES_MAX, OPEN_SECONDS, Breaker, Bulkhead
from gateway.errors import ServiceUnavailable
from gateway.rpc import Bus
from shared import errors
from shared.passport import service_passport
from shared.rpc.client import TooManyCalls
from tests.gateway.conftest import Gateway
from tests.gateway.people import FakeServices

PASSPORT = service_passport("gateway")


def test_call_gets_what_is_left_of_the_routes_time(gateway: Gateway, services: FakeServices) -> None:
    services.answer("users", "show_my_lamp", {"id": "l1"})
    services.answer("cards", "break_lamp", {"id": "l1"})
    gateway.alice.get("/api/v1/lamps/mine")
    gateway.alice.post("/api/v1/lamps/l1/break", json={"reason": "old"})
    assert 9 < services.calls_of("users", "show_my_lamp")[0].timeout <= 10
    assert 59 < services.calls_of("cards", "break_lamp")[0].timeout <= 60


def test_call_that_gets_no_answer_is_a_504(gateway: Gateway, services: FakeServices) -> None:
    services.answer("users", "show_my_lamp", errors.DeadlineExceeded(retry_after_seconds=1))
    response = gateway.alice.get("/api/v1/lamps/mine")
    assert (response.status_code, response.get_json(force=True)["code"]) == (504, "deadline_exceeded")
    assert response.headers["Retry-After"] == "1"


def test_service_that_does_not_answer_is_cut_off_and_others_are_not(gateway: Gateway, services: FakeServices) -> None:
    services.answer("cards", "light_lamp", errors.DeadlineExceeded())
    services.answer("users", "show_my_lamp", {"id": "l1"})
    for _ in range(FAILURES_MAX):
        assert gateway.alice.post("/api/v1/lamps/l1/light").status_code == 504

    refused = gateway.alice.post("/api/v1/lamps/l1/light")

    assert (refused.status_code, refused.get_json(force=True)["code"]) == (503, "service_unavailable")
    assert "Retry-After" in refused.headers
    assert len(services.calls_of("cards", "light_lamp")) == FAILURES_MAX
    assert gateway.alice.get("/api/v1/lamps/mine").status_code == 200


def test_one_call_tries_whether_a_service_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("gateway.breaker.time.monotonic", lambda: now)
    breaker = Breaker()
    for _ in range(FAILURES_MAX):
        breaker.admit()
        breaker.failed()
    with pytest.raises(ServiceUnavailable):
        breaker.admit()

    now += OPEN_SECONDS
    breaker.admit()
    with pytest.raises(ServiceUnavailable):
        breaker.admit()
    breaker.answered()
    breaker.admit()


@pytest.mark.parametrize("answer", [errors.Conflict(), errors.UpstreamFailed(), errors.InternalError(), TooManyCalls()])
def test_refusal_is_an_answer(services: FakeServices, answer: errors.ServiceError) -> None:
    services.answer("cards", "light_lamp", answer)
    bus = Bus(services)
    for _ in range(FAILURES_MAX * 2):
        with pytest.raises(type(answer)):
            bus.call("cards", "light_lamp", passport=PASSPORT, timeout_seconds=1)
    assert not bus.is_cut_off("cards")


def test_ping_that_is_answered_lets_calls_through_again(services: FakeServices) -> None:
    services.answer("cards", "light_lamp", errors.Unavailable())
    services.answer("cards", "ping", {"database": True})
    bus = Bus(services)
    for _ in range(FAILURES_MAX):
        with pytest.raises(errors.Unavailable):
            bus.call("cards", "light_lamp", passport=PASSPORT, timeout_seconds=1)
    assert bus.is_cut_off("cards")
    bus.ping("cards", timeout_seconds=1)
    assert not bus.is_cut_off("cards")


def test_calls_in_flight_are_bounded() -> None:
    bulkhead = Bulkhead(in_flight_max=2)
    release = threading.Event()

    def hold() -> None:
        with bulkhead.slot(1):
            release.wait(5)

    holders = [threading.Thread(target=hold) for _ in range(2)]
    for holder in holders:
        holder.start()
    started = time.monotonic()
    with pytest.raises(ServiceUnavailable), bulkhead.slot(0.1):
        pass
    assert time.monotonic() - started < 1
    release.set()
    for holder in holders:
        holder.join()
    with bulkhead.slot(0.1):
        pass


def test_method_may_have_arguments_named_like_ours(services: FakeServices) -> None:
    seen: dict[str, Any] = {}
    services.answer("settings", "put_service", lambda **arguments: seen.update(arguments))
    Bus(services).call("settings", "put_service", passport=PASSPORT, timeout_seconds=1, name="ledger", value=1)
    assert seen == {"name": "ledger", "value": 1}
