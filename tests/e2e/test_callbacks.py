"""Callbacks of a payment platform over the whole system: a crowd of them credits once, and refunds are counted once.

The platform is the simulator that runs beside the services: another process, asked and calling back over real HTTP.
"""

import secrets
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import requests

from operations import keys
from operations.databases import service_database
from operations.processes import payment_simulator_url
from simulators.payment_platform.server import PlatformClient
from simulators.payment_platform.stripe import STRIPE_ACCOUNT
from tests.e2e.conftest import Api, Platform, eventually

ORDERS, COPIES, AT_ONCE = 500, 20, 20
ORDERS_IN_TURN = 25
KILLED_ORDERS = 30
AMOUNT = "10.00"


@pytest.fixture
def simulator(platform: Platform) -> PlatformClient:
    """The simulated payment platform of this system."""
    return PlatformClient(payment_simulator_url(platform.system.home))


def register(platform: Platform, simulator: PlatformClient, **config: Any) -> str:
    """Register a channel that is asked at the simulator, which calls it back. Returns: its code."""
    code = f"pay-{secrets.token_hex(4)}"
    secret = keys.payment_secret(platform.system.home)
    config = {"base_url": simulator.base_url(code), "query_secret": secret, "callback_secrets": [secret]} | config
    body = {"code": code, "name": "Simulated", "kind": "http", "config": config, "reason": "A new platform."}
    answer = platform.admin.post("/channels", body)
    assert answer.status_code == 201, answer.text
    assert secret not in answer.text
    simulator.send_callbacks_to(code, f"{platform.system.url}/api/v1/channels/{code}/callbacks")
    return code


def fresh(platform: Platform) -> Api:
    """Return the administrator's way in over a connection of its own, since a session serves one thread."""
    api = Api(platform.admin.url)
    api.http.headers["Authorization"] = platform.admin.http.headers["Authorization"]
    return api


def create(api: Api, **fields: Any) -> str:
    answer = api.post("/orders", {"kind": "recharge", "amount": AMOUNT, "currency": "CNY", **fields})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["order_no"])


def order(api: Api, order_no: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/orders/{order_no}").json()
    return found


def counts(api: Api, **filters: Any) -> dict[int, tuple[int, str]]:
    """Return how many entries there are of each type, and what they come to."""
    answer = api.get("/balance-logs/summary", **filters)
    assert answer.status_code == 200, answer.text
    return {item["type"]: (item["count"], item["net"]) for item in answer.json()["items"]}


@pytest.mark.timeout(900)  # a minute by itself; many where others keep the machine busy
def test_five_hundred_orders_are_settled_once_by_twenty_callbacks_each_and_refunded_once(
    platform: Platform, simulator: PlatformClient
) -> None:
    merchant_id, buyer = platform.merchant(), f"buyer-{secrets.token_hex(4)}"
    code = register(platform, simulator)
    assert platform.recharge(merchant_id, buyer, "5000.00").status_code == 201
    fields = {"merchant_id": merchant_id, "user_id": buyer, "kind": "purchase", "channel": code}

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: create(fresh(platform), **fields), range(ORDERS)))
    [account] = platform.admin.get(f"/accounts/{buyer}").json()["items"]
    assert (account["held"], account["available"]) == ("5000.00", "0")
    payments = [{"account": code, "order_no": number, "amount": AMOUNT, "currency": "CNY"} for number in numbers]
    refs = [payment["upstream_ref"] for payment in simulator.make_payments(payments)]

    # One half of the messages is delivered again and again, the other half says the same in messages of their own.
    outcomes: Counter[str] = Counter()
    for start in range(0, ORDERS, ORDERS_IN_TURN):
        how = {"times": COPIES, "at_once": AT_ONCE, "is_same_message": start < ORDERS // 2}
        found = simulator.deliver(code, upstream_refs=refs[start : start + ORDERS_IN_TURN], **how)
        assert found["messages"] == ORDERS_IN_TURN * COPIES
        outcomes.update(found["outcomes"])
    assert set(outcomes) == {"settled", "already"}
    assert outcomes.total() == ORDERS * COPIES
    assert counts(platform.admin, user_id=buyer)[331] == (ORDERS, "-5000.00")

    def refund(number: str) -> requests.Response:
        return fresh(platform).post(f"/orders/{number}/refund", {"reason": "Given back."})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(refund, [number for number in numbers for _ in range(2)]))
    assert {(answer.status_code, answer.json()["refunded"]) for answer in answers} == {(200, AMOUNT)}
    assert counts(platform.admin, user_id=buyer) == {
        321: (1, "5000.00"), 331: (ORDERS, "-5000.00"), 333: (ORDERS, "5000.00"),
    }  # fmt: skip
    [account] = platform.admin.get(f"/accounts/{buyer}").json()["items"]
    assert (account["balance"], account["held"]) == ("5000.00", "0")
    assert {item["sum"] for item in platform.admin.get("/trial-balance").json()["items"]} == {"0"}
    listed = platform.admin.get("/orders", channel=code, status="refunded", limit=500).json()["items"]
    assert {item["order_no"] for item in listed} == set(numbers)


@pytest.mark.timeout(600)
def test_two_instances_settle_once_though_they_are_killed_amid_a_crowd_of_callbacks(
    platform: Platform, simulator: PlatformClient
) -> None:
    merchant_id, buyer = platform.merchant(), f"buyer-{secrets.token_hex(4)}"
    code = register(platform, simulator)
    fields = {"merchant_id": merchant_id, "user_id": buyer, "channel": code}
    platform.system.scale("ledger", 2)
    try:
        with ThreadPoolExecutor(8) as pool:
            numbers = list(pool.map(lambda _: create(fresh(platform), **fields), range(KILLED_ORDERS)))
        payments = [{"account": code, "order_no": number, "amount": AMOUNT, "currency": "CNY"} for number in numbers]
        refs = [payment["upstream_ref"] for payment in simulator.make_payments(payments)]
        # It takes longer to answer than it takes until the next kill.
        simulator.order_fault("delay", "query", account=code, times=None, delay_seconds=0.3)
        with ThreadPoolExecutor(2) as pool:
            how = {"times": COPIES, "at_once": AT_ONCE, "is_same_message": False}
            delivering = pool.submit(simulator.deliver, code, upstream_refs=refs, **how)
            kills = 0
            while not delivering.done() and kills < 3:
                time.sleep(1.5)
                platform.system.kill("ledger")
                kills += 1
            found = delivering.result()
        simulator.clear_faults()
        assert kills > 0
        platform.system.wait_ready()
        # What was given up is delivered again, as platforms do.
        again = simulator.deliver(code, upstream_refs=refs, at_once=4)
        assert set(found["outcomes"]) <= {"settled", "already", "given_up"}
        assert set(again["outcomes"]) <= {"settled", "already"}
        assert counts(platform.admin, user_id=buyer) == {321: (KILLED_ORDERS, f"{KILLED_ORDERS}0.00")}
        assert {item["sum"] for item in platform.admin.get("/trial-balance").json()["items"]} <= {"0"}
        settled = platform.admin.get("/orders", channel=code, status="settled", limit=500).json()["items"]
        assert {item["order_no"] for item in settled} == set(numbers)
    finally:
        platform.system.scale("ledger", 1)


def test_callback_settles_what_the_platform_confirms_and_leaves_the_rest(
    platform: Platform, simulator: PlatformClient
) -> None:
    merchant_id = platform.merchant()
    code = register(platform, simulator, fee_percent="1.5")
    fields = {"merchant_id": merchant_id, "user_id": "payer", "channel": code}
    paid, cheap, forged = (create(platform.admin, **fields) for _ in range(3))
    simulator.make_payment(code, paid, AMOUNT, upstream_ref="u-paid", fee="0.06")
    simulator.make_payment(code, cheap, "1.00", upstream_ref="u-cheap")
    simulator.make_payment(code, forged, AMOUNT, upstream_ref="u-forged")

    simulator.order_fault("server_error", "query", account=code)
    found = simulator.deliver(code, upstream_refs=["u-paid"])
    assert (found["statuses"], found["outcomes"]) == ({"503": 1, "200": 1}, {"settled": 1})
    detail = order(platform.admin, paid)
    assert (detail["status"], detail["upstream_ref"], detail["fee"], detail["fee_source"]) == (
        "settled", "u-paid", "0.15", "channel",
    )  # fmt: skip
    assert {entry["type"]: entry["amount"] for entry in detail["entries"]} == {321: AMOUNT, 521: "-0.15"}
    assert detail["history"][0]["actor_id"] == f"channel:{code}"

    assert simulator.deliver(code, upstream_refs=["u-cheap"])["outcomes"] == {"mismatched": 1}
    simulator.order_fault("bad_signature", "callback", account=code)
    assert simulator.deliver(code, upstream_refs=["u-forged"])["statuses"] == {"401": 1}
    simulator.order_fault("out_of_order", "callback", account=code)
    simulator.order_fault("duplicate", "callback", account=code)
    simulator.deliver(code, upstream_refs=["u-paid"], at_once=8)
    assert [order(platform.admin, number)["status"] for number in (paid, cheap, forged)] == [
        "settled", "pending", "pending",
    ]  # fmt: skip
    assert len(order(platform.admin, paid)["entries"]) == 2


def test_event_that_stripe_signed_is_told_from_a_forged_one(platform: Platform, simulator: PlatformClient) -> None:
    code, secret = f"stripe-{secrets.token_hex(4)}", keys.payment_secret(platform.system.home)
    config = {"api_key": "sk_test_" + "a" * 24, "callback_secrets": [secret]}
    body = {"code": code, "name": "Stripe", "kind": "stripe", "config": config, "reason": "A new platform."}
    assert platform.admin.post("/channels", body).status_code == 201
    simulator.send_callbacks_to(STRIPE_ACCOUNT, f"{platform.system.url}/api/v1/channels/{code}/callbacks")
    number = f"P-{secrets.token_hex(4)}"  # nobody's, so that Stripe is not asked
    ref = simulator.make_payment(STRIPE_ACCOUNT, number, AMOUNT, currency="USD")["upstream_ref"]
    simulator.order_fault("bad_signature", "callback", account=STRIPE_ACCOUNT)
    assert simulator.deliver(STRIPE_ACCOUNT, upstream_refs=[ref])["statuses"] == {"401": 1}
    found = simulator.deliver(STRIPE_ACCOUNT, upstream_refs=[ref])
    assert (found["statuses"], found["outcomes"]) == ({"200": 1}, {"unknown_order": 1})


def test_order_that_no_callback_came_for_settles_by_the_task(platform: Platform, simulator: PlatformClient) -> None:
    code = register(platform, simulator)
    number = create(platform.admin, merchant_id=platform.merchant(), user_id="payer", channel=code)
    simulator.make_payment(code, number, AMOUNT, upstream_ref="u-lost")
    system = platform.system
    owner = service_database(system.home, system.servers.database_url, "ledger").owner_url
    assert owner
    with psycopg.connect(owner) as connection:  # the task leaves young orders alone
        connection.execute("update orders set created_at = now() - interval '6 minutes' where order_no = %s", [number])

    assert platform.admin.post("/tasks/order_status_sync/run").status_code == 202
    eventually(lambda: order(platform.admin, number)["status"] == "settled", within_seconds=60)
    detail = order(platform.admin, number)
    assert (detail["upstream_ref"], detail["history"][0]["actor_id"]) == ("u-lost", f"channel:{code}")
    [answer] = platform.admin.get(f"/orders/{number}/upstream-answers").json()["items"]
    assert (answer["asked_for"], answer["status_code"], answer["fault"]) == ("sync", 200, None)
    assert "u-lost" in answer["body"]


def test_channel_may_not_lead_into_our_own_network(platform: Platform, simulator: PlatformClient) -> None:
    secret = keys.payment_secret(platform.system.home)
    for base_url in ("http://127.0.0.1:5672", "https://169.254.169.254/latest", "https://2130706433", "https://[::1]"):
        config = {"base_url": base_url, "query_secret": secret}
        body = {"code": f"in-{secrets.token_hex(4)}", "name": "Inside", "kind": "http", "config": config}
        answer = platform.admin.post("/channels", body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_channel_config")
