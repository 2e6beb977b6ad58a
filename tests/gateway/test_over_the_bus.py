"""The gateway as a process of its own, over a real bus, with a service that comes, hangs and goes."""

import base64
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import amqp
import orjson
import pytest
import requests

from gateway.configuration import SERVICES
from shared.errors import ServiceError
from shared.link import Link, OutgoingMessage
from shared.rpc.wire import REPLIES_EXCHANGE, Answer, pack_answer, unpack_call
from shared.topology import EVENTS_EXCHANGE, declare_topology, rpc_queue_name
from tests.gateway.people import FakeServices

ROOT = Path(__file__).resolve().parents[2]
KEY = secrets.token_bytes(32)


class Impostor:
    """Answers for all seven services what the fake of them says, over the bus, with the kernel's own wire format."""

    def __init__(self, amqp_url: str, services: FakeServices) -> None:
        self._services = services
        self._link = Link(amqp_url, name="impostor", on_connect=self._serve)
        self._channel: amqp.Channel | None = None
        self.silent: set[str] = set()
        self.records: list[dict[str, Any]] = []

    def start(self) -> None:
        self._link.start()
        assert self._link.wait_until_up(10)

    def stop(self) -> None:
        self._link.stop()

    def _serve(self, connection: amqp.Connection) -> None:
        self._channel = channel = connection.channel()
        for service in SERVICES:
            channel.basic_consume(rpc_queue_name(service), no_ack=True, callback=self._taker(service))
        channel.exchange_declare(EVENTS_EXCHANGE, "topic", durable=True, auto_delete=False)
        queue = channel.queue_declare(exclusive=True).queue
        channel.queue_bind(queue, EVENTS_EXCHANGE, "gateway.*")
        channel.basic_consume(queue, no_ack=True, callback=lambda m: self.records.append(orjson.loads(m.body)))

    def _taker(self, service: str) -> Any:
        def take(message: amqp.Message) -> None:
            if service not in self.silent:
                threading.Thread(target=self._answer, args=(service, message), daemon=True).start()

        return take

    def _answer(self, service: str, message: amqp.Message) -> None:
        correlation_id = message.properties["correlation_id"]
        call = unpack_call(
            bytes(message.body),
            message.headers,
            service=service,
            key=KEY,
            correlation_id=correlation_id,
            is_redelivered=False,
        )
        outcome: Answer | ServiceError
        try:
            outcome = self._services.call(
                service,
                call.method,
                passport=call.passport,
                timeout=call.seconds_left,
                idempotency_key=call.idempotency_key,
                **call.arguments,
            )
        except ServiceError as error:
            outcome = error
        answer = OutgoingMessage(
            exchange=REPLIES_EXCHANGE,
            routing_key=message.properties["reply_to"],
            body=pack_answer(outcome, key=KEY, correlation_id=correlation_id),
            properties={"correlation_id": correlation_id},
            is_durable=False,
            is_mandatory=False,
            content_type="application/octet-stream",
        )
        assert self._channel is not None
        self._link.send(self._channel, answer)


class Seven:
    """Stands for the seven service classes where only their names matter."""


@pytest.fixture
def services() -> FakeServices:
    """What the services answer."""
    fake = FakeServices()
    for service in SERVICES:
        fake.answer(service, "ping", {"instance": service, "database": True})
    fake.answer("cards", "list_cards", {"items": [], "next_cursor": None})
    return fake


@pytest.fixture
def impostor(amqp_url: str, services: FakeServices) -> Iterator[Impostor]:
    """The seven services on the bus."""
    declare_topology(amqp_url, [type(name, (Seven,), {"name": name}) for name in SERVICES])
    impostor = Impostor(amqp_url, services)
    impostor.start()
    yield impostor
    impostor.stop()


class Running:
    """A gateway process."""

    def __init__(self, amqp_url: str, spool: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        self.spool = spool
        environment = {
            **os.environ,
            **{f"PASSPORT_KEY_{service.upper()}": base64.b64encode(KEY).decode() for service in SERVICES},
            "AMQP_URL": amqp_url,
            "PORT": self.url.rpartition(":")[2],
            "SPOOL_DIR": str(spool),
        }
        self.process = subprocess.Popen([sys.executable, "-m", "gateway"], cwd=ROOT, env=environment)

    def get(self, path: str, token: str = "", **headers: str) -> requests.Response:
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return requests.get(f"{self.url}{path}", headers=headers, timeout=30)

    def wait_until_ready(self) -> None:
        give_up_at = time.monotonic() + 20
        while True:
            try:
                if self.get("/readyz").status_code == 200:
                    return
            except requests.ConnectionError:
                pass
            assert time.monotonic() < give_up_at, "the gateway did not get ready"
            time.sleep(0.1)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(40)


@pytest.fixture
def running(amqp_url: str, impostor: Impostor, tmp_path: Path) -> Iterator[Running]:
    """A gateway that is ready."""
    running = Running(amqp_url, tmp_path / "spool")
    try:
        running.wait_until_ready()
        yield running
    finally:
        if running.process.poll() is None:
            running.stop(signal.SIGKILL)


def eventually(check: Any, *, within_seconds: float = 10) -> None:
    give_up_at = time.monotonic() + within_seconds
    while not check():
        assert time.monotonic() < give_up_at, "it did not come true in time"
        time.sleep(0.05)


def test_request_goes_all_the_way_and_is_recorded(running: Running, impostor: Impostor, services: FakeServices) -> None:
    response = running.get("/api/v1/cards", services.token("bob"), **{"X-Request-ID": "req-all-the-way"})
    assert (response.status_code, response.json()) == (200, {"items": [], "next_cursor": None})
    seen = services.calls_of("cards", "list_cards")[0]
    assert (seen.passport.actor_name, seen.passport.request_id) == ("bob", "req-all-the-way")
    eventually(lambda: any(record["request_id"] == "req-all-the-way" for record in impostor.records))


def test_body_in_pieces_is_read_whole_or_refused(running: Running, services: FakeServices) -> None:
    services.answer("cards", "freeze_card", {"id": "c1"})
    headers = {"Authorization": f"Bearer {services.token('alice')}", "Content-Type": "application/json"}

    def send(pieces: list[bytes]) -> requests.Response:
        return requests.post(f"{running.url}/api/v1/cards/c1/freeze", data=iter(pieces), headers=headers, timeout=10)

    assert send([b'{"reason": ', b'"lost"}']).status_code == 200
    too_large = send([b'{"reason": "lost"}', *[b" " * 65536] * 17])
    assert (too_large.status_code, too_large.json()["code"]) == (413, "payload_too_large")


def test_many_requests_at_once_get_their_own_answers(running: Running, services: FakeServices) -> None:
    services.answer("cards", "get_card", lambda card_id: {"id": card_id})
    token = services.token("alice")

    def ask(number: int) -> str:
        card: str = running.get(f"/api/v1/cards/card_{number}", token).json()["id"]
        return card

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(200))) == [f"card_{number}" for number in range(200)]


def test_silent_service_is_answered_for_by_the_deadline_and_slows_nobody(
    running: Running, impostor: Impostor, services: FakeServices
) -> None:
    services.answer("audit", "list_logs", {"items": [], "next_cursor": None})
    token = services.token("alice")
    running.get("/api/v1/permissions", token)
    impostor.silent.add("cards")
    with ThreadPoolExecutor(20) as pool:
        started = time.monotonic()
        stuck = [pool.submit(running.get, "/api/v1/cards", token) for _ in range(12)]
        time.sleep(0.3)
        others = []
        for _ in range(20):
            asked = time.monotonic()
            assert running.get("/api/v1/permissions", token).status_code == 200
            others.append(time.monotonic() - asked)
        answers = [future.result() for future in stuck]
        took = time.monotonic() - started
    assert max(others) < 1
    assert {answer.status_code for answer in answers} <= {503, 504}
    assert all("Retry-After" in answer.headers for answer in answers)
    assert took < 11
    asked = time.monotonic()
    assert running.get("/api/v1/cards", token).json()["code"] == "service_unavailable"
    assert time.monotonic() - asked < 0.5

    impostor.silent.clear()
    eventually(lambda: running.get("/api/v1/cards", token).status_code == 200)


def test_silent_users_service_lets_known_callers_through(
    running: Running, impostor: Impostor, services: FakeServices
) -> None:
    token = services.token("alice")
    assert running.get("/api/v1/cards", token).status_code == 200
    impostor.silent.add("users")
    time.sleep(3.1)
    # What users said last holds while it does not answer.
    assert running.get("/api/v1/cards", token).status_code == 200
    readiness = running.get("/readyz")
    assert readiness.status_code == 503
    assert readiness.json()["services"]["users"]["is_ready"] is False
    assert readiness.json()["services"]["cards"]["is_ready"] is True


def test_stop_lets_requests_end_and_leaves_no_record_behind(
    running: Running, impostor: Impostor, services: FakeServices
) -> None:
    def slow(**_arguments: Any) -> dict[str, Any]:
        time.sleep(1.5)
        return {"items": [], "next_cursor": None}

    services.answer("cards", "list_cards", slow)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(running.get, "/api/v1/cards", services.token("alice"), **{"X-Request-ID": "req-last"})
        time.sleep(0.5)
        assert running.stop() == 0
        assert under_way.result().status_code == 200
    eventually(lambda: any(record["request_id"] == "req-last" for record in impostor.records))
    assert [*running.spool.rglob("*")] == []


def test_record_of_a_killed_gateway_is_carried_by_the_next(
    running: Running, impostor: Impostor, amqp_url: str, services: FakeServices
) -> None:
    running.get("/api/v1/cards", services.token("alice"), **{"X-Request-ID": "req-before-kill"})
    # Its worker is another process, which must die with it.
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
    for pid in [*map(int, children), running.process.pid]:
        os.kill(pid, signal.SIGKILL)
    running.process.wait(10)
    successor = Running(amqp_url, running.spool)
    try:
        eventually(lambda: any(record["request_id"] == "req-before-kill" for record in impostor.records))
    finally:
        successor.stop()
