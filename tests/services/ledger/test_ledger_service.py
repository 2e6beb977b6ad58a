"""The ledger as a real process on a real bus and database."""

import base64
import os
import secrets
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from kombu import Connection, Exchange, Queue

from services.ledger.service import LedgerService
from shared.contracts.ledger import InsufficientBalance, WrongSign
from shared.contracts.settings import ParameterChanged
from shared.contracts.users import MerchantCreated, MerchantNotFound
from shared.errors import IdempotencyKeyReused, PermissionDenied, ServiceError
from shared.events import Event
from shared.link import OutgoingMessage
from shared.outbox import envelope_of
from shared.passport import Passport
from shared.publishing import ConfirmedPublisher
from shared.rpc.client import RpcClient
from shared.rpc.wire import Answer, Call
from shared.topology import EVENTS_EXCHANGE, declare_topology
from tests.conftest import AURORA, BOREALIS, person
from tests.services.ledger.conftest import own_database, raw_change
from tests.shared.conftest import eventually

ROOT = Path(__file__).resolve().parents[3]
ALICE = person("Alice", "administrator", None)
BOB = person("Bob", "operator", frozenset({AURORA}))


class RunningLedger:
    """The service's process, its database, and a client of it."""

    def __init__(self, database_url: str, amqp_url: str, log_path: Path) -> None:
        key = secrets.token_bytes(32)
        self.log_path = log_path
        self.engine = sa.create_engine(database_url)
        keys = dict.fromkeys(
            ("PASSPORT_KEY", "PASSPORT_KEY_SETTINGS", "PASSPORT_KEY_USERS"), base64.b64encode(key).decode()
        )
        self.environment = {
            **os.environ, **keys, "SERVICE": "ledger", "DATABASE_URL": database_url, "AMQP_URL": amqp_url,
        }  # fmt: skip
        self.client = RpcClient(amqp_url, {"ledger": key}, name="tests-ledger").start()
        self.publisher = ConfirmedPublisher(amqp_url, name="tests-ledger")
        self.publisher.start()
        self._bus = Connection(amqp_url)
        events = Exchange(EVENTS_EXCHANGE, "topic")
        queue = Queue(f"tests.{uuid.uuid4().hex}", events, routing_key="ledger.#", exclusive=True)
        self._emitted = queue(self._bus.channel())
        self._emitted.declare()
        self.start()

    def start(self) -> None:
        """Start a process and wait until it answers."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "shared.runner", "services.ledger.service:LedgerService"],
                cwd=ROOT, env=self.environment, stdout=log, stderr=log,
            )  # fmt: skip
        eventually(self._answers)

    def _answers(self) -> bool:
        try:
            return bool(self.call("ping")["instance"] == f"ledger-{self.process.pid}")
        except ServiceError:
            return False

    def answer(self, method: str, *, passport: Passport = ALICE, key: str | None = None, **arguments: Any) -> Answer:
        return self.client.call("ledger", method, passport=passport, timeout=20, idempotency_key=key, **arguments)

    def call(self, method: str, **arguments: Any) -> Any:
        return self.answer(method, **arguments).result

    def post(self, *, passport: Passport = ALICE, key: str | None = None, **fields: Any) -> Any:
        return self.call(
            "post_balance_change", passport=passport, key=key or secrets.token_hex(8), **raw_change(**fields)
        )

    def publish(self, event: Event) -> None:
        """Put an event on the bus as the service that emits it does."""
        envelope = envelope_of(event, Call(service=event.service, method="test", passport=ALICE, arguments={}))
        properties = {"message_id": envelope["event_id"]}
        body = orjson.dumps(envelope)
        self.publisher.publish([OutgoingMessage(EVENTS_EXCHANGE, event.routing_key(), body, properties=properties)])

    def emitted(self) -> list[dict[str, Any]]:
        """Take the events that the service has put on the bus since the last look."""
        found = []
        while (message := self._emitted.get(no_ack=True)) is not None:
            found.append(orjson.loads(message.body))
        return found

    def tell_of_merchant(self, merchant_id: str) -> None:
        """Publish that a merchant was made, and wait until the ledger has heard."""
        self.publish(MerchantCreated(merchant_id=merchant_id, code="C", name="N", status="active", version=1))
        query = sa.text("select 1 from merchant_copies where merchant_id = :m")

        def is_known() -> bool:
            with self.engine.connect() as connection:
                return connection.execute(query, {"m": merchant_id}).first() is not None

        eventually(is_known)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)


@pytest.fixture(scope="module")
def ledger(server_url: str, amqp_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLedger]:
    declare_topology(amqp_url, [LedgerService])
    with own_database(server_url) as url:
        running = RunningLedger(url, amqp_url, tmp_path_factory.mktemp("ledger") / "ledger.log")
        for merchant_id in (AURORA, BOREALIS):
            running.tell_of_merchant(merchant_id)
        yield running
        running.stop()
        running.client.stop()
        running.publisher.stop()
        running.engine.dispose()


def test_change_is_posted_once_and_told_of_once(ledger: RunningLedger) -> None:
    ledger.emitted()
    raw = raw_change(user_id="once", amount="12.50")
    first = ledger.answer("post_balance_change", key="once", **raw)
    again = ledger.answer("post_balance_change", key="once", **raw)
    assert (first.result["balance"], first.is_replayed) == ("12.50", False)
    assert (again.result, again.is_replayed) == (first.result, True)
    [event] = eventually(ledger.emitted)
    assert (event["event"], event["action"]) == ("BalancesChanged", "ledger.post_balance_change")
    assert event["payload"]["entries"] == [first.result]
    with pytest.raises(IdempotencyKeyReused):
        ledger.answer("post_balance_change", key="once", **raw | {"amount": "13.00"})


def test_refusals_cross_the_bus_as_themselves(ledger: RunningLedger) -> None:
    with pytest.raises(WrongSign):
        ledger.post(amount="-1.00")
    with pytest.raises(InsufficientBalance):
        ledger.post(user_id="poor", type=323, amount="-1.00")
    with pytest.raises(MerchantNotFound):
        ledger.post(passport=BOB, merchant_id=BOREALIS)
    with pytest.raises(PermissionDenied):
        ledger.post(passport=person("Dora", "auditor", None))
    with pytest.raises(PermissionDenied):
        ledger.call("verify_ledger", passport=BOB)


def test_callers_at_once_are_posted_together_and_each_gets_its_own(ledger: RunningLedger) -> None:
    ledger.post(user_id="hot", amount="50.00")

    def spend(n: int) -> str:
        try:
            return str(ledger.post(user_id="hot", type=323, amount="-1.00", order_no=f"H{n}")["order_no"])
        except InsufficientBalance:
            return "refused"

    with ThreadPoolExecutor(32) as pool:
        outcomes = list(pool.map(spend, range(100)))
    assert [o for n, o in enumerate(outcomes) if o not in ("refused", f"H{n}")] == []
    assert outcomes.count("refused") == 50


def test_batch_of_ten_thousand_is_posted_read_and_proved(ledger: RunningLedger) -> None:
    changes = [raw_change(user_id=f"batch-{n % 200}", amount="0.01") for n in range(10_000)]
    text = ledger.call("post_balance_changes", key="batch", changes=changes, atomic=True)
    view = orjson.loads(text)
    assert (view["posted"], len(view["items"])) == (10_000, 10_000)
    assert ledger.call("post_balance_changes", key="batch", changes=changes, atomic=True) == text
    page = ledger.call("list_balance_logs", limit=2, user_id="batch-7")
    assert [entry["balance"] for entry in page["items"]] == ["0.50", "0.49"]
    following = ledger.call("list_balance_logs", limit=2, user_id="batch-7", cursor=page["next_cursor"])
    assert [entry["balance"] for entry in following["items"]] == ["0.48", "0.47"]
    [account] = ledger.call("list_user_accounts", user_id="batch-7")
    assert (account["balance"], account["version"]) == ("0.50", 50)
    assert [t["sum"] for t in ledger.call("read_trial_balance")["items"]] == ["0"]
    assert ledger.call("verify_ledger")["faults"] == []
    assert ledger.call("verify_ledger", mode="incremental")["ok"]


def test_deltas_are_folded_by_themselves(ledger: RunningLedger) -> None:
    ledger.post(user_id="folded")

    def is_empty() -> bool:
        with ledger.engine.connect() as connection:
            return connection.execute(sa.text("select 1 from posting_deltas")).first() is None

    eventually(is_empty)
    summary = ledger.call("summarize_balance_logs", user_id="folded")
    assert summary["items"][0]["increase"] == "100.00"


def test_threshold_of_the_settings_is_taken_while_it_runs(ledger: RunningLedger) -> None:
    ledger.publish(
        ParameterChanged(
            key="ledger.large_change_threshold", value="5.00", version=1, affects=["ledger"], changes={}, reason="test"
        )
    )

    def is_told() -> list[dict[str, Any]]:
        ledger.post(user_id="large", amount="5.00")
        return [event for event in ledger.emitted() if event["event"] == "LargeChangeDetected"]

    [large, *_] = eventually(is_told)
    assert (large["payload"]["amount"], large["payload"]["threshold"]) == ("5.00", "5.00")


def test_killed_in_the_middle_each_key_is_posted_once(ledger: RunningLedger) -> None:
    def post_until_answered(n: int) -> str:
        raw = raw_change(user_id="survivor", amount="1.00", order_no=f"S{n}")
        while True:
            try:
                return str(ledger.call("post_balance_change", key=f"survivor-{n}", **raw)["entry_id"])
            except ServiceError as error:
                if error.family.__name__ not in ("Unavailable", "DeadlineExceeded", "Conflict"):
                    raise

    with ThreadPoolExecutor(16) as pool:
        posting = [pool.submit(post_until_answered, n) for n in range(300)]
        posting[20].result(30)
        ledger.process.kill()
        ledger.process.wait(10)
        ledger.start()
        entries = [future.result(60) for future in posting]
    assert len(set(entries)) == 300
    [account] = ledger.call("list_user_accounts", user_id="survivor")
    assert (account["balance"], account["version"]) == ("300.00", 300)
    assert ledger.call("verify_ledger")["faults"] == []
