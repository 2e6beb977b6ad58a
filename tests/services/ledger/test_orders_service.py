"""Orders through the ledger's real process: keys, permissions, events on the bus."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shared.contracts.ledger import InsufficientBalance, OrderNotFound
from shared.errors import IdempotencyKeyReused, PermissionDenied
from tests.conftest import AURORA, BOREALIS, person
from tests.services.ledger.test_ledger_service import BOB, RunningLedger, ledger
from tests.shared.conftest import eventually

__all__ = ["ledger"]  # the fixture

NEW = {"merchant_id": AURORA, "user_id": "buyer", "kind": "purchase", "amount": "10.00", "currency": "CNY"}


def test_order_lives_and_each_act_is_told_of_once(ledger: RunningLedger) -> None:
    ledger.post(user_id="buyer", amount="10.00")
    ledger.emitted()
    first = ledger.answer("create_order", key="new", **NEW)
    again = ledger.answer("create_order", key="new", **NEW)
    assert (again.result, again.is_replayed) == (first.result, True)
    number = first.result["order_no"]
    with pytest.raises(IdempotencyKeyReused):
        ledger.answer("create_order", key="new", **NEW | {"amount": "9.00"})
    with ThreadPoolExecutor(20) as pool:
        settled = list(
            pool.map(lambda n: ledger.call("settle_order", key=f"s{n}", order_no=number, upstream_ref="u"), range(20))
        )
    assert {order["settled_at"] for order in settled} == {settled[0]["settled_at"]}
    with ThreadPoolExecutor(2) as pool:
        refunded = list(
            pool.map(lambda n: ledger.call("refund_order", key=f"r{n}", order_no=number, reason="Broken."), range(2))
        )
    assert [order["refunded"] for order in refunded] == ["10.00", "10.00"]

    seen: list[dict[str, Any]] = []

    def told() -> list[tuple[str, str, str]]:
        seen.extend(ledger.emitted())
        found = [(e["event"], e["action"], e["resource_id"]) for e in seen if e["resource_type"] == "order"]
        return found if len(found) >= 3 else []

    assert eventually(told) == [
        ("OrderCreated", "ledger.create_order", number),
        ("OrderSettled", "ledger.settle_order", number),
        ("OrderRefunded", "ledger.refund_order", number),
    ]
    changed = [e["payload"]["entries"][0]["type"] for e in seen if e["event"] == "BalancesChanged"]
    assert changed[-2:] == [331, 333]
    [account] = ledger.call("list_user_accounts", user_id="buyer")
    assert (account["balance"], account["held"], account["available"]) == ("10.00", "0", "10.00")
    detail = ledger.call("get_order", passport=BOB, order_no=number)
    assert [act["act"] for act in detail["history"]] == ["refund", "settle", "create"]
    assert number in [o["order_no"] for o in ledger.call("list_orders", limit=10, kind="purchase")["items"]]
    assert ledger.call("verify_ledger")["faults"] == []


def test_refused_order_leaves_nothing_and_is_refused_alike_under_its_key(ledger: RunningLedger) -> None:
    wanted = NEW | {"user_id": "late", "order_no": "late-1"}
    for _ in range(2):
        with pytest.raises(InsufficientBalance):
            ledger.answer("create_order", key="late", **wanted)
        ledger.post(user_id="late", amount="10.00")
    with pytest.raises(OrderNotFound):
        ledger.call("get_order", order_no="late-1")
    assert ledger.call("create_order", key="later", **wanted)["status"] == "pending"
    assert ledger.call("fail_order", key="fail", order_no="late-1")["status"] == "failed"


def test_orders_need_their_permission_and_merchant(ledger: RunningLedger) -> None:
    dora = person("Dora", "auditor", None)
    assert ledger.call("list_orders", passport=dora, limit=1)["items"] is not None
    for method, arguments in [
        ("create_order", NEW),
        ("settle_order", {"order_no": "x"}),
        ("fail_order", {"order_no": "x"}),
        ("refund_order", {"order_no": "x", "reason": "x"}),
    ]:
        with pytest.raises(PermissionDenied):
            ledger.call(method, passport=dora, **arguments)
    theirs = ledger.call("create_order", key="t", **NEW | {"merchant_id": BOREALIS, "kind": "payment"})["order_no"]
    with pytest.raises(OrderNotFound):
        ledger.call("settle_order", passport=BOB, order_no=theirs)
