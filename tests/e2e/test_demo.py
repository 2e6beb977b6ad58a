"""The demonstration's data, through the gateway: filled in once, and not again; past days where they can be lived."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import date
from typing import Any

import psycopg
import pytest

from operations import demo as demonstration
from operations.databases import service_database
from operations.processes import simulator_url
from operations.system import System
from operations.turned_clock import turned_clock
from simulators import demo
from simulators.demo import cards, people, plan
from simulators.gateway_client import GatewayClient, SignIn
from simulators.telegram.server import ControlClient
from tests.e2e.conftest import Platform, eventually, started_system


@pytest.fixture(scope="module")
def fresh_system() -> Iterator[System]:
    """A system that nobody has used: only its ledger has no account yet."""
    with started_system() as system:
        yield system


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_demonstration_fills_each_page_with_thirty_days_once(fresh_system: System) -> None:
    demonstration.fill(fresh_system)
    check_clock(fresh_system)
    client = GatewayClient(SignIn.read(fresh_system.home.first_sign_in))
    check_past(client)
    check_mismatches(client, plan.PLANTS)
    assert len(list(client.items("/closed-days"))) == plan.CLOSED_DAYS
    check_cards(client)
    check_people(client, fresh_system)
    check_groups(client, ControlClient(simulator_url(fresh_system.home)))
    run = client.post("/tasks/balance_check/run", key="proof").body
    done = eventually(lambda: finished(client, run["id"]), within_seconds=60)
    assert (done["status"], done["result"]["broken"]) == ("succeeded", [])

    before = pages(client)
    demonstration.fill(fresh_system)
    assert pages(client) == before


@pytest.mark.timeout(600)
def test_where_there_are_accounts_the_demonstration_is_of_today(platform: Platform) -> None:
    recharged = platform.recharge(platform.merchant(), "somebody", "10.00")
    assert recharged.status_code == 201
    with turned_clock(platform.system) as clock:
        assert clock is None
    client = GatewayClient(SignIn.read(platform.system.home.first_sign_in))
    demonstration.fill(platform.system)
    check_mismatches(client, plan.PLANTS_TODAY)
    today = client.get("/orders", limit=1)["items"][0]["created_at"][:10]
    assert {order["created_at"][:10] for order in orders_of_demo(client)} == {today}


def finished(client: GatewayClient, run_id: str) -> dict[str, Any] | None:
    run: dict[str, Any] = client.get(f"/task-runs/{run_id}")
    return run if run["finished_at"] else None


def orders_of_demo(client: GatewayClient) -> list[dict[str, Any]]:
    """Return all orders of the demonstration's merchants."""
    ids = {m["id"] for m in client.items("/merchants") if m["code"] in demo.MERCHANTS}
    return [order for merchant_id in ids for order in client.items("/orders", merchant_id=merchant_id)]


def pages(client: GatewayClient) -> dict[str, int]:
    """Return how much each page shows."""
    paths = (
        "/merchants", "/orders", "/channels", "/statements", "/reconciliations", "/mismatches", "/corrections",
        "/closed-days", "/cards", "/cards/bins", "/devices", "/users", "/roles", "/telegram/bindings",
    )  # fmt: skip
    shown = {path: len(list(client.items(path))) for path in paths}
    assert all(shown.values()), shown
    long_ago = {"from": "2000-01-01T00:00:00Z"}
    return shown | {"entries": sum(r["count"] for r in client.get("/balance-logs/summary", **long_ago)["items"])}


def check_clock(system: System) -> None:
    """See that nothing is left of the turned clock."""
    ledger = service_database(system.home, system.servers.database_url, "ledger")
    with psycopg.connect(ledger.app_url) as connection:
        assert connection.execute("select to_regnamespace('turned')").fetchone() == (None,)
        [search_path] = connection.execute("show search_path").fetchone() or [None]
        assert "turned" not in str(search_path)


def check_past(client: GatewayClient) -> None:
    """See that orders and entries lie in thirty days, and that the books are right where all is settled."""
    orders = [order for order in orders_of_demo(client) if order["settled_at"]]
    days = {order["settled_at"][:10] for order in orders}
    assert len(days) > plan.DAYS
    assert all(order["created_at"][:10] == order["settled_at"][:10] for order in orders if order["order_no"][0] != "X")
    summary = client.get("/balance-logs/summary", **{"from": "2000-01-01T00:00:00Z"})["items"]
    assert len({row["type"] for row in summary}) == 19
    first_closed = min(day["date"] for day in client.items("/closed-days"))
    daily = client.get("/reconciliations/daily", date=first_closed)
    assert {item["name"] for item in daily["items"]} >= {"recharge_total", "consumption_total"}
    assert [item for item in daily["items"] if not item["ok"]] == []
    assert client.get(f"/channels/{plan.CALLS_BACK}")["kind"] == "http"
    paid = next(order for order in plan.plan_past(date.today(), "UTC") if order.channel == plan.CALLS_BACK)
    history = client.get(f"/orders/{paid.order_no}")["history"]
    settled_by = {act["actor_id"] for act in history if act["act"] == "settle"}
    assert settled_by == {f"channel:{plan.CALLS_BACK}"}  # its platform called back, and was asked
    assert {row["sum"] for row in client.get("/trial-balance")["items"]} == {"0"}


def check_mismatches(client: GatewayClient, plants: dict[int, plan.Plant]) -> None:
    """See that what was planted was found, and that it went as planned.

    Yesterday's may still come right until it is a day old: it is found, or not yet.
    """
    ends = {"upstream": "corrected", "local": "corrected", "reconcile": "reconciled", "ignore": "ignored"}
    ends |= {"propose": "pending_approval", "reverse": "open", "leave": "open"}
    planted = Counter((plant.kind, ends[plant.act]) for plant in plants.values())
    of_yesterday = Counter([(plan.PLANTS[plan.DAYS - 1].kind, "open")])
    merchants = {m["id"] for m in client.items("/merchants") if m["code"] in demo.MERCHANTS}
    channels = {channel.code for channel in plan.CHANNELS}
    found = Counter(
        (m["kind"], m["status"])
        for m in client.items("/mismatches")
        if m["channel"] in channels and m["merchant_id"] in {None, *merchants}
    )
    assert found in (planted, planted - of_yesterday)


def check_cards(client: GatewayClient) -> None:
    """See cards of each status with and without money, and devices of each."""
    of_aurora = {"merchant_id": next(m["id"] for m in client.items("/merchants") if m["code"] == "AURORA")}
    found = list(client.items("/cards", **of_aurora))
    assert {(card["status"], card["balance"]) for card in found} == {
        ("inactive", "0"), ("active", "1450.60"), ("frozen", "1450.60")
    }  # fmt: skip
    assert {card["bin"] for card in found} == {cards.BIN, cards.BIN_OF_AURORA[:6]}
    devices = Counter(device["status"] for device in client.items("/devices", **of_aurora))
    assert devices == {"bound": 3, "blocked": 1, "unbound": 1}
    rows = list(client.items("/device-logs", source="device", **of_aurora))
    assert len(rows) == 2 * 7 * len(cards.LOG)


def check_people(client: GatewayClient, system: System) -> None:
    """See that each can sign in who is kept in the home's file, for its owner only, and sees what is theirs."""
    path = system.home.path / demonstration.SIGN_INS
    assert path.stat().st_mode & 0o777 == 0o600
    kept = {row["username"]: SignIn(**row) for row in json.loads(path.read_text())}
    assert kept.keys() == {person.username for person in people.PEOPLE}
    assert [m["code"] for m in GatewayClient(kept["bob"]).items("/merchants")] == ["AURORA"]
    assert {m["code"] for m in GatewayClient(kept["charlie"]).items("/merchants")} == {"BOREALIS", "CIRRUS"}
    [proposal] = client.items("/mismatches", status="pending_approval")
    approved = client.post(f"/mismatches/{proposal['id']}/approve", {}, key="approve").body
    assert approved["status"] == "corrected"  # whoever signs in first is not who proposed it


def check_groups(client: GatewayClient, telegram: ControlClient) -> None:
    """See that a merchant's group was told of its large recharges."""
    of_aurora = {"merchant_id": next(m["id"] for m in client.items("/merchants") if m["code"] == "AURORA")}
    told = {"type": "large_change", "status": "sent", **of_aurora}
    eventually(lambda: len(list(client.items("/telegram/notifications", **told))) == len(demo.LARGE_RECHARGES))
    [binding] = client.items("/telegram/bindings", **of_aurora)
    assert {m["chat"]["title"] for m in telegram.messages(int(binding["chat_id"]))} == {"Aurora Mobile · payments"}
