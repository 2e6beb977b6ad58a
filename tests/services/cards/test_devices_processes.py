"""Two instances of cards on a real bus: each goes by kill -9 while devices go and come back; each edge is told once."""

import base64
import collections
import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from kombu import Connection, Exchange, Queue
from sqlalchemy.orm import Session

from benchmarks.probe_furniture import own_database
from services.cards.service import CardsService
from shared.contracts.devices import CardDeviceLimitReached
from shared.contracts.settings import ParameterChanged
from shared.errors import Unavailable
from shared.link import OutgoingMessage
from shared.outbox import envelope_of
from shared.publishing import ConfirmedPublisher
from shared.rpc.client import RpcClient
from shared.rpc.wire import Call
from shared.topology import EVENTS_EXCHANGE, declare_topology
from tests.conftest import AURORA, person
from tests.services.cards.conftest import add_merchants
from tests.shared.conftest import eventually

ROOT = Path(__file__).resolve().parents[3]
ALICE = person("Alice", "administrator", None)
DEVICES = 60
KEYS = ("PASSPORT_KEY", "PASSPORT_KEY_SETTINGS", "PASSPORT_KEY_USERS", "PASSPORT_KEY_LEDGER")


class RunningCards:
    """Two processes of the service on one database, a client of them, and what they tell of."""

    def __init__(self, database_url: str, amqp_url: str, log_path: Path) -> None:
        key = secrets.token_bytes(32)
        self.engine = sa.create_engine(database_url)
        self.log_path = log_path
        pan_key, index_key = (base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2))
        self.environment = {
            **os.environ,
            **dict.fromkeys(KEYS, base64.b64encode(key).decode()),
            "SERVICE": "cards",
            "DATABASE_URL": database_url,
            "AMQP_URL": amqp_url,
            "PAN_KEY": pan_key,
            "PAN_KEY_ID": "k1",
            "PAN_INDEX_KEY": index_key,
        }
        self.client = RpcClient(amqp_url, {"cards": key}, name="tests-devices").start()
        self.publisher = ConfirmedPublisher(amqp_url, name="tests-devices")
        self.publisher.start()
        self._bus = Connection(amqp_url)
        queue = Queue(f"tests.{key.hex()}", Exchange(EVENTS_EXCHANGE, "topic"), routing_key="cards.#", exclusive=True)
        self._emitted = queue(self._bus.channel())
        self._emitted.declare()
        self.processes = [self.start(), self.start()]
        eventually(lambda: self.call("ping"))

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "shared.runner", "services.cards.service:CardsService"]
        with self.log_path.open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=log)

    def kill_one(self) -> None:
        """Kill a process in the middle of whatever it does, and start another."""
        gone = self.processes.pop(random.randrange(len(self.processes)))
        gone.kill()
        gone.wait(10)
        self.processes.append(self.start())

    def call(self, method: str, **arguments: Any) -> Any:
        """Call until somebody answers: a process that is killed answers nobody."""
        while True:
            try:
                return self.client.call("cards", method, passport=ALICE, timeout=5, **arguments).result
            except Unavailable:
                time.sleep(0.2)

    def set_parameter(self, key: str, value: int, *, version: int = 1) -> None:
        """Tell what the settings service would tell."""
        event = ParameterChanged(key=key, value=value, version=version, affects=["cards"], changes={}, reason="x")
        call = Call(service="settings", method="test", passport=ALICE, arguments={})
        envelope = envelope_of(event, call)
        properties = {"message_id": envelope["event_id"]}
        body = orjson.dumps(envelope)
        self.publisher.publish([OutgoingMessage(EVENTS_EXCHANGE, event.routing_key(), body, properties=properties)])

    def emitted(self) -> list[dict[str, Any]]:
        """Take the events that were put on the bus since the last look."""
        found = []
        while (message := self._emitted.get(no_ack=True)) is not None:
            found.append(orjson.loads(message.body))
        return found

    def count(self, sql: str) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(sa.text(sql)).scalar_one())

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(10)
        self.client.stop()
        self.publisher.stop()
        self._bus.release()
        self.engine.dispose()


@pytest.fixture
def running(server_url: str, amqp_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningCards]:
    monkeypatch.setenv("DATABASE_URL", server_url)
    declare_topology(amqp_url, [CardsService])
    with own_database("cards") as url:
        engine = sa.create_engine(url)
        with Session(engine) as session, session.begin():
            add_merchants(session)
        engine.dispose()
        running = RunningCards(url, amqp_url, tmp_path / "cards.log")
        yield running
        running.stop()


@pytest.fixture
def devices(running: RunningCards) -> list[str]:
    """As many devices as may be on one card, with parameters that tests have time for."""
    for key, value in (
        ("cards.max_devices_per_card", DEVICES),
        ("cards.device_heartbeat_seconds", 1),
        ("cards.device_grace_seconds", 1),
    ):
        running.set_parameter(key, value)
    eventually(lambda: running.count("select count(*) from parameter_copies") == 3)
    time.sleep(2)  # until both instances have looked
    card = {"bin": "411111", "holder_name": "Ada", "currency": "CNY", "merchant_id": AURORA}
    card_id = running.call("create_card", **card)["id"]
    described = [{"fingerprint": f"fp-{n}", "name": f"Till {n}", "platform": "ios"} for n in range(DEVICES)]
    return [running.call("bind_device", card_id=card_id, **device)["device_id"] for device in described]


OFFLINE = "select count(*) from device_presence where is_offline"


@pytest.mark.timeout(200)
def test_each_edge_is_told_once_though_instances_die_in_the_middle(running: RunningCards, devices: list[str]) -> None:
    rounds = 2
    running.call("hear_devices", device_ids=devices)
    for _ in range(rounds):
        running.kill_one()
        eventually(lambda: running.count(OFFLINE) > 0, within_seconds=30)
        running.kill_one()
        eventually(lambda: running.count(OFFLINE) == DEVICES, within_seconds=40)
        for start in range(0, DEVICES, 10):
            running.call("hear_devices", device_ids=devices[start : start + 10])
            if start == 20:
                running.kill_one()
    # From now on nobody is missed any more, so that both counts are of the same moment.
    running.set_parameter("cards.device_grace_seconds", 3600, version=2)
    eventually(lambda: running.count("select sum(version) from parameter_copies") == 4)
    time.sleep(2)
    eventually(lambda: running.count("select count(*) from outbox") == 0, within_seconds=30)

    edges = _edges(running.emitted)
    assert edges == _logged(running)
    for device_id in devices:
        # A device that fell silent again before the round was over made two edges more.
        gone, back = edges[device_id, "offline"], edges[device_id, "online"]
        assert gone >= rounds
        assert gone - back in (0, 1)


def _edges(emitted: Callable[[], list[dict[str, Any]]]) -> collections.Counter[tuple[str, str]]:
    """Count the edges that were told of, an event that came twice once."""
    named = {"DeviceWentOffline": "offline", "DeviceCameOnline": "online"}
    by_id = {event["event_id"]: event for event in emitted() if event["event"] in named}
    return collections.Counter((event["resource_id"], named[event["event"]]) for event in by_id.values())


def _logged(running: RunningCards) -> collections.Counter[tuple[str, str]]:
    """Count the edges in the device log, and check that they take turns."""
    with running.engine.connect() as connection:
        rows = connection.execute(
            sa.text(
                "select device_id, action from device_logs where action in ('offline', 'online') order by time, seq"
            )
        ).all()
    for device_id in {row.device_id for row in rows}:
        turns = [row.action for row in rows if row.device_id == device_id]
        assert turns == ["offline", "online"] * (len(turns) // 2) + ["offline"] * (len(turns) % 2)
    return collections.Counter((row.device_id, row.action) for row in rows)


def test_a_parameter_holds_at_every_instance_and_refuses_exactly(running: RunningCards) -> None:
    """Sixty binds over two processes at once, and the card takes the seven that it may have."""
    running.set_parameter("cards.max_devices_per_card", 7)
    eventually(lambda: running.count("select count(*) from parameter_copies") == 1)
    time.sleep(2)
    card = {"bin": "411111", "holder_name": "Ada", "currency": "CNY", "merchant_id": AURORA}
    card_id = running.call("create_card", **card)["id"]

    def bind(number: int) -> bool:
        try:
            running.call("bind_device", card_id=card_id, fingerprint=f"fp-{number}", name="Till", platform="ios")
        except CardDeviceLimitReached:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(bind, range(60))) == 7
    assert running.count("select count(*) from card_devices where unbound_at is null") == 7
