"""The table of processes: each is told its own secrets and nobody else's."""

import json
import subprocess
import sys

import pytest

from operations import processes as subject
from operations.home import Home
from operations.processes import Process, is_of
from operations.servers import Servers
from operations.services import SERVICES


@pytest.fixture
def home(tmp_path):
    """A home whose servers are given, so that nothing is started."""
    home = Home(tmp_path)
    home.take_given({"DATABASE_URL": "postgresql://admin@127.0.0.1:1/postgres", "AMQP_URL": "amqp://a:b@127.0.0.1:2/x"})
    return home


def told(home, service):
    return subject.environment(home, Servers(home), Process(service))


def test_service_has_its_own_database_and_no_administrators(home):
    assert told(home, "cards")["DATABASE_URL"].startswith("postgresql://countinghouse_cards:")


def test_only_cards_can_read_card_numbers(home):
    assert [service for service in SERVICES if "PAN_KEY" in told(home, service)] == ["cards"]
    assert "PAN_KEY" not in told(home, "gateway")


def test_only_the_ledger_can_read_the_secrets_of_channels(home):
    assert [service for service in SERVICES if "CHANNEL_KEY" in told(home, service)] == ["ledger"]
    assert "CHANNEL_KEY" not in told(home, "gateway")


def test_ledger_asks_nobody_nearby_unless_told(home):
    home.take_given({"PAYMENT_SIMULATOR": "off"})
    assert told(home, "ledger")["OUTBOUND_ALLOW"] == ""
    home.take_given({"OUTBOUND_ALLOW": "127.0.0.1:9000", "STRIPE_API_BASE": "http://127.0.0.1:9000"})
    assert told(home, "ledger")["OUTBOUND_ALLOW"] == "127.0.0.1:9000"
    assert told(home, "ledger")["STRIPE_API_BASE"] == "http://127.0.0.1:9000"


def test_only_users_can_sign_access_tokens(home):
    assert [service for service in SERVICES if "SIGNING_KEY_FILE" in told(home, service)] == ["users"]
    assert "SIGNING_KEY_FILE" not in told(home, "gateway")


def test_only_users_can_read_the_secrets_of_two_factor_sign_in(home):
    assert [service for service in SERVICES if "TOTP_KEY" in told(home, service)] == ["users"]
    assert "TOTP_KEY" not in told(home, "gateway")


def test_service_holds_the_keys_of_its_callees_only(home):
    for name, service in SERVICES.items():
        keys = {word for word in told(home, name) if word.startswith("PASSPORT_KEY_")}

        assert keys == {f"PASSPORT_KEY_{callee.upper()}" for callee in service.callees}


def test_gateway_can_call_everybody(home):
    assert {f"PASSPORT_KEY_{service.upper()}" for service in SERVICES} <= told(home, "gateway").keys()


def test_caller_and_callee_agree_on_the_key(home):
    assert told(home, "tasks")["PASSPORT_KEY_LEDGER"] == told(home, "ledger")["PASSPORT_KEY"]


def test_scaled_service_has_so_many_processes(home):
    home.state.set("scale", {"ledger": 3})

    names = [process.name for process in subject.processes(home) if process.service == "ledger"]

    assert names == ["ledger-1", "ledger-2", "ledger-3"]


def test_given_bot_api_replaces_the_simulator(home):
    home.take_given({"TELEGRAM_API_URL": "https://bots.example"})

    assert subject.SIMULATOR not in [process.name for process in subject.processes(home)]
    assert told(home, "telegram")["TELEGRAM_API_URL"] == "https://bots.example"


def test_payment_simulator_may_be_asked_while_it_runs(home):
    simulator = told(home, subject.PAYMENT_SIMULATOR)

    assert told(home, "ledger")["OUTBOUND_ALLOW"] == f"127.0.0.1:{simulator['PORT']}"
    assert simulator["PAYMENT_PLATFORM_SECRET"].startswith("whsec_")
    assert "AMQP_URL" not in simulator
    assert subject.PAYMENT_SIMULATOR in [process.name for process in subject.processes(home)]
    home.take_given({"PAYMENT_SIMULATOR": "off"})
    assert subject.PAYMENT_SIMULATOR not in [process.name for process in subject.processes(home)]


def test_calls_never_go_in_a_ring():
    done: set[str] = set()
    while ready := {s.name for s in SERVICES.values() if s.name not in done and set(s.callees) <= done}:
        done |= ready

    assert done == set(SERVICES)


def test_orders_are_readable_by_their_owner_only(home):
    subject.write_orders(home, Servers(home))

    orders = list(home.run.glob("*.json"))

    assert {path.stem for path in orders} == {process.name for process in subject.processes(home)}
    assert {path.stat().st_mode & 0o777 for path in orders} == {0o600}


def test_process_does_not_inherit_the_administrators_addresses(home, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://admin@127.0.0.1/postgres")
    monkeypatch.setenv("LEDGER_AMQP_URL", "amqp://other@127.0.0.1/x")
    orders = home.run / "probe.json"
    orders.write_text(json.dumps({"command": ["/usr/bin/env"], "environment": {"AMQP_URL": "own"}}))
    become = [sys.executable, "-I", "-S", "operations/become.py", str(orders)]

    seen = subprocess.run(become, capture_output=True, text=True, check=True).stdout

    assert "AMQP_URL=own" in seen.splitlines()
    assert "DATABASE_URL" not in seen
    assert "LEDGER_AMQP_URL" not in seen


def test_a_name_means_its_service_and_nobody_else():
    assert is_of("telegram-1", "telegram")
    assert is_of("telegram-1", "telegram-1")
    assert is_of("gateway", "gateway")
    assert not is_of("telegram-simulator", "telegram")
    assert not is_of("telegram-2", "telegram-1")
