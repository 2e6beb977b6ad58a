"""What breaks is told by the deadline, disturbs nobody else, and heals by itself (RELIABILITY.md "Pass lines")."""

import secrets
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests

from tests.e2e.conftest import Api, Platform, eventually

DEADLINE_SECONDS = 10
BACK_SECONDS_MAX = 30


@contextmanager
def frozen(platform: Platform, process: str) -> Iterator[None]:
    """Freeze a process, and thaw it whatever happens."""
    platform.system.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        platform.system.kill(process, signal.SIGCONT)


def assert_unavailable(answer: requests.Response) -> None:
    """Check that an answer says that something is away, when to come again, and nothing of the inside."""
    assert answer.status_code in (503, 504), answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    for inner in ("Traceback", "psycopg", "amqp", "127.0.0.1", "rpc."):
        assert inner not in answer.text


def seconds_of(answer: requests.Response) -> float:
    return answer.elapsed.total_seconds()


def prove(platform: Platform) -> None:
    """Check the invariants that must hold after every fault: sums, chains, and that nothing is left behind."""
    assert {row["sum"] for row in platform.admin.get("/trial-balance").json()["items"]} <= {"0"}
    eventually(lambda: _outboxes_are_empty(platform), within_seconds=60)
    verified = platform.admin.get("/logs/verify").json()
    assert verified["ok"], verified


def _outboxes_are_empty(platform: Platform) -> bool:
    ready = requests.get(f"{platform.system.url}/readyz", timeout=10).json()
    return ready["is_ready"] and all(s["outbox_pending"] == 0 for s in ready["services"].values())


def test_a_service_that_is_down_is_told_by_the_deadline_and_disturbs_no_other(platform: Platform) -> None:
    merchant = platform.merchant()
    platform.system.stop("cards")
    try:
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(platform.admin.get("/cards"))) for _ in range(8)
        ]  # fmt: skip
        for thread in threads:
            thread.start()
        others = [platform.admin.get("/merchants", limit=1) for _ in range(20)]
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in others] == [200] * 20
        assert max(seconds_of(answer) for answer in others) < 1
        for answer in answers:
            assert_unavailable(answer)
            assert seconds_of(answer) < DEADLINE_SECONDS + 1
        assert requests.get(f"{platform.system.url}/readyz", timeout=15).status_code == 503
    finally:
        platform.system.start("cards")
    eventually(lambda: platform.admin.get("/cards", merchant_id=merchant).status_code == 200, within_seconds=20)


def test_a_frozen_broker_lets_each_request_end_by_its_deadline(platform: Platform) -> None:
    merchant = platform.merchant()
    token = str(platform.admin.http.headers["Authorization"]).removeprefix("Bearer ")
    with frozen(platform, "rabbitmq"):
        answers: list[requests.Response] = []

        def ask() -> None:
            body = {
                "merchant_id": merchant, "user_id": "u-frozen", "type": 321, "amount": "1.00", "currency": "CNY",
                "order_no": f"R{secrets.token_hex(6)}", "channel": "alipay",
            }  # fmt: skip
            answers.append(Api(platform.system.url, token).post("/balance-changes", body))

        threads = [threading.Thread(target=ask) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 30
        for answer in answers:
            assert_unavailable(answer)
            assert seconds_of(answer) < DEADLINE_SECONDS + 1
    eventually(
        lambda: platform.recharge(merchant, "u-after", "1.00").status_code == 201, within_seconds=BACK_SECONDS_MAX
    )
    platform.system.wait_ready(timeout_seconds=BACK_SECONDS_MAX)
    prove(platform)


@pytest.mark.parametrize("victim", ["ledger", "users", "audit", "settings", "rabbitmq", "postgres", "gateway"])
def test_money_moves_exactly_once_though_a_process_is_killed(platform: Platform, victim: str) -> None:
    merchant = platform.merchant()
    token = str(platform.admin.http.headers["Authorization"]).removeprefix("Bearer ")
    stop_at = time.monotonic() + 6
    posted: list[str] = []

    def post_until_done(client: int) -> None:
        api, n = Api(platform.system.url, token), 0
        while time.monotonic() < stop_at:
            n += 1
            key = f"{victim}-{merchant}-{client}-{n}"
            body = {
                "merchant_id": merchant, "user_id": f"u-{client}", "type": 321, "amount": "1.00", "currency": "CNY",
                "order_no": key, "channel": "alipay",
            }  # fmt: skip
            _post_until_answered(api, body, key)
            posted.append(key)

    threads = [threading.Thread(target=post_until_done, args=(client,)) for client in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(1.5)
    platform.system.kill(victim)
    for thread in threads:
        thread.join()
    platform.system.wait_ready()
    summary = platform.admin.get("/balance-logs/summary", merchant_id=merchant).json()
    (recharges,) = summary["items"]
    assert recharges["count"] == len(posted)
    assert recharges["net"] == f"{len(posted)}.00"
    prove(platform)
    logged = eventually(
        lambda: platform.admin.get("/logs", merchant_id=merchant, type="operation", q=posted[-1]).json()["items"]
    )
    assert len(logged) == 1


def _post_until_answered(api: Api, body: dict[str, str | int], key: str) -> None:
    """Post with one key, as a careful client does, until the answer is known."""
    give_up_at = time.monotonic() + 90
    while True:
        assert time.monotonic() < give_up_at, "no answer"
        try:
            answer = api.post("/balance-changes", body, key=key)
        except requests.ConnectionError:
            time.sleep(0.2)
            continue
        if answer.status_code == 201:
            return
        assert answer.status_code in (401, 409, 502, 503, 504), answer.text
        assert answer.status_code != 409 or answer.json()["code"] == "idempotency_in_progress", answer.text
        assert answer.status_code != 401 or "users" in key, answer.text
        time.sleep(0.2)


def test_a_disabled_user_and_a_changed_role_hold_within_five_seconds(platform: Platform) -> None:
    merchant = platform.merchant()
    bob, bob_id = platform.person_and_id(roles=["operator"], merchants=[merchant])
    assert bob.get("/balance-logs").status_code == 200
    assert bob.get("/cards").status_code == 200
    assert platform.admin.patch(f"/users/{bob_id}", {"merchants": []}).status_code == 200
    eventually(lambda: bob.get("/accounts", merchant_id=merchant).json()["items"] == [], within_seconds=5)
    assert platform.admin.patch(f"/users/{bob_id}", {"roles": ["auditor"]}).status_code == 200
    eventually(lambda: bob.post("/cards", {}).status_code == 403, within_seconds=5)
    assert platform.admin.post(f"/users/{bob_id}/disable", {"reason": "left the company"}).status_code == 200
    eventually(lambda: bob.get("/balance-logs").status_code == 401, within_seconds=5)
