"""An order's life: HTTP, bus, database, events, audit; and that its money is held, moved and given back once."""

import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.e2e.conftest import Api, Platform, eventually


def account_of(api: Api, user_id: str) -> tuple[str, str, str]:
    [account] = api.get(f"/accounts/{user_id}").json()["items"]
    return account["balance"], account["held"], account["available"]


def test_an_order_lives_from_hold_to_refund_and_each_act_is_logged(platform: Platform) -> None:
    merchant_id, user_id, number = platform.merchant(), f"user-{secrets.token_hex(4)}", f"P-{secrets.token_hex(6)}"
    operator = platform.person(roles=["operator"], merchants=[merchant_id])
    assert platform.recharge(merchant_id, user_id, "100.00").status_code == 201
    body = {
        "order_no": number, "merchant_id": merchant_id, "user_id": user_id, "kind": "purchase", "amount": "80.00",
        "currency": "CNY",
    }  # fmt: skip
    made = operator.post("/orders", body)
    assert (made.status_code, made.json()["status"]) == (201, "pending")
    assert operator.post("/orders", body).json()["code"] == "order_number_taken"
    assert account_of(operator, user_id) == ("100.00", "80.00", "20.00")
    second = operator.post("/orders", body | {"order_no": None})
    assert (second.status_code, second.json()["code"]) == (409, "insufficient_balance")

    with ThreadPoolExecutor(10) as pool:
        settled = list(pool.map(lambda _: operator.post(f"/orders/{number}/settle", {"upstream_ref": "u1"}), range(20)))
    assert {(answer.status_code, answer.json()["status"]) for answer in settled} == {(200, "settled")}
    assert account_of(operator, user_id) == ("20.00", "0", "20.00")
    with ThreadPoolExecutor(2) as pool:
        refunded = list(pool.map(lambda _: operator.post(f"/orders/{number}/refund", {"reason": "Broken."}), range(2)))
    assert {(answer.status_code, answer.json()["status"]) for answer in refunded} == {(200, "refunded")}
    assert account_of(operator, user_id) == ("100.00", "0", "100.00")
    detail = operator.get(f"/orders/{number}").json()
    assert [entry["type"] for entry in detail["entries"]] == [333, 331]
    assert [act["act"] for act in detail["history"]] == ["refund", "settle", "create"]
    [listed] = operator.get("/orders", user_id=user_id).json()["items"]
    assert listed == {name: detail[name] for name in listed}

    def acts() -> list[str]:
        rows = platform.admin.get("/logs", resource_id=number, limit=100).json()["items"]
        return sorted(row["action"] for row in rows if row["log_type"] == "operation")

    eventually(lambda: len(acts()) >= 3)
    assert acts() == ["ledger.create_order", "ledger.refund_order", "ledger.settle_order"]
    assert {row["sum"] for row in platform.admin.get("/trial-balance").json()["items"]} == {"0"}


def test_another_merchants_operator_neither_sees_nor_settles_an_order(platform: Platform) -> None:
    ours, theirs = platform.merchant(), platform.merchant()
    outsider = platform.person(roles=["operator"], merchants=[theirs])
    order = {"merchant_id": ours, "user_id": "u", "kind": "recharge", "amount": "1.00", "currency": "CNY"}
    number = platform.admin.post("/orders", order).json()["order_no"]
    assert outsider.get("/orders").json()["items"] == []
    for hidden in (number, "nowhere"):
        answers = [
            outsider.get(f"/orders/{hidden}"),
            outsider.post(f"/orders/{hidden}/settle"),
            outsider.post(f"/orders/{hidden}/fail"),
            outsider.post(f"/orders/{hidden}/refund", {"reason": "x"}),
        ]
        assert {(a.status_code, a.json()["code"]) for a in answers} == {(404, "order_not_found")}
    assert outsider.post("/orders", order).json()["code"] == "merchant_not_found"


def test_two_ledgers_carry_out_each_act_of_an_order_once(platform: Platform) -> None:
    merchant_id, user_id = platform.merchant(), f"user-{secrets.token_hex(4)}"
    assert platform.recharge(merchant_id, user_id, "100.00").status_code == 201
    order = {"merchant_id": merchant_id, "user_id": user_id, "kind": "purchase", "amount": "3.00", "currency": "CNY"}
    past = {"merchant_id": merchant_id, "user_id": user_id, "type": 331, "amount": "-3.00", "currency": "CNY"}
    platform.system.scale("ledger", 2)
    try:
        numbers = [platform.admin.post("/orders", order).json()["order_no"] for _ in range(8)]
        acts: list[tuple[str, dict[str, Any]]] = []
        for number in numbers:
            acts += [(f"/orders/{number}/settle", {"upstream_ref": "u1"})] * 4
            acts += [(f"/orders/{number}/fail", {}), (f"/orders/{number}/refund", {"reason": "Broken."})] * 2
            acts += [(f"/orders/{number}/refund", {"reason": "In part.", "amount": "2.00"})] * 2
            acts += [("/balance-changes", past | {"order_no": number})]
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda act: platform.admin.post(*act), acts))
    finally:
        platform.system.scale("ledger", 1)
    assert {answer.status_code for answer in answers} <= {200, 409}
    codes = {answer.json()["code"] for answer in answers if answer.status_code == 409}
    assert codes <= {"order_not_pending", "order_not_settled", "refund_too_large", "settled_through_order"}
    kept = 0
    for number in numbers:
        shown = platform.admin.get(f"/orders/{number}").json()
        ends = [act["act"] for act in shown["history"] if act["act"] in ("settle", "fail")]
        types = sorted(entry["type"] for entry in shown["entries"])
        assert len(ends) == 1
        assert types[:1] == ([331] if ends == ["settle"] else [])
        assert set(types[1:]) <= {333}
        kept += round(100 * (3 - float(shown["refunded"]))) if ends == ["settle"] else 0
    assert account_of(platform.admin, user_id) == (f"{100 - kept / 100:.2f}", "0", f"{100 - kept / 100:.2f}")
