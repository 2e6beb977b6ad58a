"""The telegram service as a real process on a real bus, from the ledger's event to the Bot API emulator."""

import base64
import os
import secrets
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from kombu import Connection, Exchange, Queue

from services.telegram.service import TelegramService
from shared.contracts.devices import DeviceCameOnline, DeviceWentOffline
from shared.contracts.ledger import BalancesChanged
from shared.contracts.settings import ParameterChanged
from shared.contracts.telegram import ChatAlreadyBound
from shared.contracts.users import MerchantCreated, MerchantNotFound
from shared.errors import PermissionDenied
from shared.events import Event
from shared.link import OutgoingMessage
from shared.outbox import envelope_of
from shared.passport import Passport
from shared.publishing import ConfirmedPublisher
from shared.rpc.client import RpcClient
from shared.rpc.wire import Call
from shared.topology import EVENTS_EXCHANGE, declare_topology
from simulators.telegram import RunningSimulator, running_simulator
from tests.conftest import AURORA, BOREALIS, person
from tests.services.telegram.conftest import entry
from tests.shared.conftest import eventually

ROOT = Path(__file__).resolve().parents[3]
ALICE = person("Alice", "administrator", None)


class RunningTelegram:
    """The service's process, its database, a client of it, and what it sends to."""

    def __init__(self, database_url: str, amqp_url: str, simulator: RunningSimulator, log_path: Path) -> None:
        key = secrets.token_bytes(32)
        self.simulator = simulator
        self.log_path = log_path
        self._log = log_path.open("ab")
        self.engine = sa.create_engine(database_url)
        self.environment = {
            **os.environ,
            "SERVICE": "telegram",
            "DATABASE_URL": database_url,
            "AMQP_URL": amqp_url,
            # Nobody answers for settings and users here: what the service knows of them, events have told it.
            **dict.fromkeys(
                ("PASSPORT_KEY", "PASSPORT_KEY_SETTINGS", "PASSPORT_KEY_USERS"), base64.b64encode(key).decode()
            ),
            "TELEGRAM_API_URL": simulator.url,
            "TELEGRAM_BOT_TOKEN": simulator.token,
        }
        self.client = RpcClient(amqp_url, {"telegram": key}, name="tests-telegram").start()
        self.publisher = ConfirmedPublisher(amqp_url, name="tests-telegram")
        self.publisher.start()
        self._bus = Connection(amqp_url)
        everything = Exchange(EVENTS_EXCHANGE, "topic")
        queue = Queue(f"tests.{uuid.uuid4().hex}", everything, routing_key="telegram.#", exclusive=True)
        self._emitted = queue(self._bus.channel())
        self._emitted.declare()
        self.start()

    def emitted(self) -> list[dict[str, Any]]:
        """Take the events that the service has put on the bus since the last look."""
        found = []
        while (message := self._emitted.get(no_ack=True)) is not None:
            found.append(orjson.loads(message.body))
        return found

    def start(self) -> None:
        """Start a process and wait until it answers."""
        path = "services.telegram.service:TelegramService"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "shared.runner", path],
            cwd=ROOT,
            env=self.environment,
            stdout=self._log,
            stderr=self._log,
        )
        eventually(self._answers)

    def _answers(self) -> bool:
        try:
            return bool(self.call("ping", ALICE)["instance"] == f"telegram-{self.process.pid}")
        except Exception:
            return False

    def call(self, method: str, passport: Passport, **arguments: Any) -> Any:
        return self.client.call("telegram", method, passport=passport, timeout=5, **arguments).result

    def publish(self, event: Event) -> dict[str, Any]:
        """Put an event on the bus as the service that emits it does."""
        call = Call(service=event.service, method="test", passport=ALICE, arguments={})
        envelope: Any = envelope_of(event, call)
        self.publish_again(envelope)
        return dict(envelope)

    def publish_again(self, envelope: dict[str, Any]) -> None:
        key = f"{envelope['service']}.{envelope['event']}"
        body = orjson.dumps(envelope)
        properties = {"message_id": envelope["event_id"]}
        self.publisher.publish([OutgoingMessage(EVENTS_EXCHANGE, key, body, properties=properties)])

    def rows(self, sql: str) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(sa.text(sql)).all())

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
        self.client.stop()
        self.publisher.stop()
        self._bus.release()
        self.engine.dispose()
        self._log.close()


@pytest.fixture(scope="module")
def telegram(
    make_database: Callable[[str], str], amqp_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningTelegram]:
    declare_topology(amqp_url, [TelegramService])
    log_path = tmp_path_factory.mktemp("telegram") / "telegram.log"
    with running_simulator() as simulator:
        running = RunningTelegram(make_database("telegram"), amqp_url, simulator, log_path)
        for version, merchant_id in enumerate((AURORA, BOREALIS), start=1):
            running.publish(
                MerchantCreated(
                    merchant_id=merchant_id, code=merchant_id, name=merchant_id, status="active", version=version
                )
            )
        eventually(lambda: len(running.rows("select * from merchant_copies")) == 2)
        yield running
        running.stop()
        with running.engine.begin() as connection:
            connection.execute(sa.text("truncate bindings, notifications, outbox, inbox cascade"))
            connection.execute(sa.text("delete from pace where chat_id <> 0"))
            connection.execute(sa.text("update pace set theoretical_at = 'epoch', paused_until = 'epoch'"))


def bind(telegram: RunningTelegram, *, merchant_id: str = AURORA, threshold: str | None = "1000") -> tuple[str, int]:
    """Bind a group and switch its rule on. Returns: the binding's id and the chat's."""
    chat_id = -(10**12) - uuid.uuid4().int % 10**9
    binding = telegram.call(
        "create_binding", ALICE, merchant_id=merchant_id, chat_id=str(chat_id), title="", language="en"
    )
    rule = {"enabled": True, "threshold": threshold}
    telegram.call("change_rules", ALICE, binding_id=binding["id"], large_change=rule)
    return binding["id"], chat_id


def balances_changed(*entries: dict[str, Any]) -> BalancesChanged:
    return BalancesChanged(entries=[entry(**{"merchant_id": AURORA} | e) for e in entries])


def test_large_change_reaches_the_group_within_a_second_and_once(telegram: RunningTelegram) -> None:
    binding_id, chat_id = bind(telegram)
    envelope = telegram.publish(balances_changed({"amount": "-1000.00"}, {"amount": "999.99", "entry_id": "ent_2"}))
    eventually(lambda: telegram.simulator.messages(chat_id), within_seconds=3)
    telegram.publish_again(envelope)
    telegram.publish(balances_changed({"amount": "1", "order_no": "last"}))
    eventually(lambda: telegram.rows("select 1 from inbox where handler = 'on_balances_changed' having count(*) = 2"))
    [message] = telegram.simulator.messages(chat_id)
    assert "-1000.00 CNY" in message["text"]
    [sent] = eventually(
        lambda: telegram.call("list_notifications", ALICE, binding_id=binding_id, status="sent", limit=10)["items"]
    )
    assert sent["message_id"] == message["message_id"]
    assert sent["event_id"] == envelope["event_id"]


def test_adjustment_reaches_the_group_whose_rule_is_on(telegram: RunningTelegram) -> None:
    binding_id, chat_id = bind(telegram)
    rule = {"enabled": False, "threshold": None}
    telegram.call("change_rules", ALICE, binding_id=binding_id, large_change=rule, adjustment={"enabled": True})
    adjusted = {"amount": "0.01", "type": 326, "type_name": "Admin Adjust", "reason": "It was missing."}
    telegram.publish(balances_changed({"amount": "5000.00"}, adjusted | {"entry_id": "ent_2"}))
    [message] = eventually(lambda: telegram.simulator.messages(chat_id), within_seconds=3)
    assert "+0.01 CNY" in message["text"]
    assert message["text"].endswith("Reason: It was missing.")


def test_a_device_that_goes_and_comes_back_is_told_to_its_group_once_each(telegram: RunningTelegram) -> None:
    binding_id, chat_id = bind(telegram)
    rule = {"enabled": True, "threshold": None}
    telegram.call("change_rules", ALICE, binding_id=binding_id, large_change=rule, device={"enabled": True})
    facts: dict[str, Any] = {
        "device_id": "dev_1", "merchant_id": AURORA, "name": "Till 1", "last_seen_at": "2026-11-24T08:00:00Z",
    }  # fmt: skip
    gone = telegram.publish(DeviceWentOffline(**facts, silent_seconds=185))
    eventually(lambda: len(telegram.simulator.messages(chat_id)) == 1, within_seconds=3)
    telegram.publish_again(gone)
    telegram.publish(DeviceCameOnline(**facts, silent_seconds=600))
    eventually(lambda: len(telegram.simulator.messages(chat_id)) == 2, within_seconds=3)
    eventually(lambda: telegram.rows("select 1 from inbox where handler = 'on_device_edge' having count(*) = 2"))
    first_lines = [message["text"].split("\n")[0] for message in telegram.simulator.messages(chat_id)]
    assert first_lines == ["Device offline", "Device back online"]


def test_all_that_happens_is_told_with_who_did_it(telegram: RunningTelegram) -> None:
    telegram.emitted()
    binding_id, _ = bind(telegram)
    telegram.publish(balances_changed({"amount": "2000.00"}))
    told: list[dict[str, Any]] = []

    def told_of_binding() -> list[dict[str, Any]]:
        told.extend(telegram.emitted())
        return [event for event in told if event["payload"]["binding_id"] == binding_id]

    eventually(lambda: len(told_of_binding()) == 3)
    created, changed, sent = told_of_binding()
    assert (created["action"], created["actor"]["type"]) == ("telegram.create_binding", "user")
    assert (changed["action"], changed["event"]) == ("telegram.change_rules", "NotificationRulesChanged")
    assert sent["event"] == "NotificationSent"
    assert (sent["action"], sent["actor"]["id"]) == ("telegram.send_notification", "service:telegram")
    assert sent["merchant_id"] == AURORA


def test_test_message_arrives_and_names_the_untitled_binding(telegram: RunningTelegram) -> None:
    binding_id, chat_id = bind(telegram, merchant_id=BOREALIS)
    telegram.simulator.name_chat(chat_id, "Borealis desk")
    queued = telegram.call("send_test", ALICE, binding_id=binding_id)
    assert queued["status"] == "queued"
    eventually(lambda: telegram.simulator.messages(chat_id), within_seconds=3)
    eventually(lambda: telegram.call("get_notification", ALICE, notification_id=queued["id"])["status"] == "sent")
    [binding] = telegram.call("list_bindings", ALICE, merchant_id=BOREALIS, limit=1)["items"]
    assert binding["title"] == "Borealis desk"


def test_merchant_that_is_not_the_callers_cannot_be_bound(telegram: RunningTelegram, bob: Passport) -> None:
    fields = {"chat_id": "-100777", "title": "", "language": "en"}
    with pytest.raises(MerchantNotFound):
        telegram.call("create_binding", bob, merchant_id=BOREALIS, **fields)
    auditor = person("Dora", "auditor", None)
    with pytest.raises(PermissionDenied):
        telegram.call("create_binding", auditor, merchant_id=AURORA, **fields)
    assert telegram.rows("select * from bindings where chat_id = -100777") == []


def test_refusal_is_replayed_under_its_key(telegram: RunningTelegram) -> None:
    _, chat_id = bind(telegram)
    fields = {"merchant_id": AURORA, "chat_id": str(chat_id), "title": "", "language": "en"}
    for _ in range(2):
        with pytest.raises(ChatAlreadyBound):
            telegram.call("create_binding", ALICE, idempotency_key="telegram-refusal", **fields)


def test_rule_without_threshold_follows_the_parameter(telegram: RunningTelegram) -> None:
    _, chat_id = bind(telegram, threshold=None)
    telegram.publish(
        ParameterChanged(
            key="ledger.large_change_threshold",
            value="50.00",
            version=7,
            affects=["telegram"],
            changes={},
            reason="test",
        )
    )

    def told() -> Any:
        telegram.publish(balances_changed({"amount": "60.00", "entry_id": f"ent_{uuid.uuid4().hex}"}))
        return telegram.simulator.messages(chat_id)

    assert eventually(told, within_seconds=8)


def test_killed_service_loses_no_event(telegram: RunningTelegram) -> None:
    _, chat_id = bind(telegram)
    telegram.process.kill()
    telegram.process.wait()
    telegram.publish(balances_changed({"amount": "4321.00"}))
    assert telegram.simulator.messages(chat_id) == []
    telegram.start()
    eventually(lambda: telegram.simulator.messages(chat_id))


def test_no_process_wrote_the_token(telegram: RunningTelegram) -> None:
    telegram.simulator.order_fault("drop_before_delivery")
    binding_id, chat_id = bind(telegram)
    telegram.call("send_test", ALICE, binding_id=binding_id)
    eventually(lambda: telegram.simulator.messages(chat_id))
    told = telegram.log_path.read_text()
    assert "message not sent" in told
    assert telegram.simulator.token.split(":")[1] not in told
    stored = telegram.rows("select text, last_error from notifications") + telegram.rows("select envelope from outbox")
    assert telegram.simulator.token.split(":")[1] not in str(stored)
