"""The routes of orders: their shapes, their permissions, and what of a request reaches the service."""

from typing import Any

import pytest

from shared.contracts.ledger import OrderNotFound, OrderNumberTaken, RefundTooLarge
from tests.gateway.people import AURORA
from tests.gateway.test_ledger_routes import ENTRY, KEY

ORDER = {
    "order_no": "P-1",
    "merchant_id": AURORA,
    "user_id": "user-1",
    "kind": "purchase",
    "amount": "12.50",
    "currency": "CNY",
    "channel": "alipay",
    "status": "settled",
    "upstream_ref": "up-1",
    "fee": "0",
    "refunded": "0",
    "created_at": "2026-11-24T08:00:00.000000Z",
    "settled_at": "2026-11-24T08:01:00.000000Z",
}
ACT = {
    "act": "settle",
    "status_before": "pending",
    "status_after": "settled",
    "amount": "12.50",
    "upstream_ref": "up-1",
    "reason": None,
    "actor_id": "usr_bob",
    "actor_name": "bob",
    "actor_type": "user",
    "request_id": "req_1",
    "time": "2026-11-24T08:01:00.000000Z",
}
NEW = {"merchant_id": AURORA, "user_id": "user-1", "kind": "purchase", "amount": "12.50", "currency": "CNY"}


def test_order_is_created_as_the_body_says(gateway: Any, services: Any) -> None:
    services.answer("ledger", "create_order", ORDER)
    answer = gateway.bob.post("/api/v1/orders", json=NEW | {"order_no": "P-1"}, headers=KEY)
    assert (answer.status_code, answer.json) == (201, ORDER)
    [call] = services.calls_of("ledger", "create_order")
    assert (call.arguments, call.idempotency_key) == (NEW | {"order_no": "P-1"}, "k-1")


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("settle", {}),
        ("settle", {"upstream_ref": "up-1"}),
        ("fail", {}),
        ("fail", {"reason": "No stock."}),
        ("refund", {"reason": "Broken."}),
        ("refund", {"reason": "Broken.", "amount": "2.50"}),
    ],
)
def test_act_reaches_the_ledger_with_its_number(gateway: Any, services: Any, verb: str, body: dict[str, Any]) -> None:
    services.answer("ledger", f"{verb}_order", ORDER)
    answer = gateway.bob.post(f"/api/v1/orders/P-1/{verb}", json=body, headers=KEY)
    assert (answer.status_code, answer.json) == (200, ORDER)
    [call] = services.calls_of("ledger", f"{verb}_order")
    assert (call.arguments, call.idempotency_key) == ({"order_no": "P-1"} | body, "k-1")


def test_detail_has_entries_and_history(gateway: Any, services: Any) -> None:
    more = {"entries": [ENTRY], "history": [ACT], "upstream_records": [], "mismatches": []}
    detail = ORDER | {"fee_percent": "0.6", "fee_source": "channel"} | more
    services.answer("ledger", "get_order", detail)
    assert gateway.dora.get("/api/v1/orders/P-1").json == detail


def test_filters_reach_the_ledger(gateway: Any, services: Any) -> None:
    services.answer("ledger", "list_orders", {"items": [ORDER], "next_cursor": None})
    query = {
        "kind": "purchase", "status": "settled", "merchant_id": AURORA, "user_id": "user-1", "channel": "alipay",
        "currency": "CNY", "min_amount": "1.00", "max_amount": "2.00", "from": "2026-11-24T00:00:00Z",
    }  # fmt: skip
    answer = gateway.bob.get("/api/v1/orders", query_string=query)
    assert answer.json == {"items": [ORDER], "next_cursor": None}
    [call] = services.calls_of("ledger", "list_orders")
    wanted = {name: value for name, value in query.items() if name != "from"}
    assert wanted.items() <= call.arguments.items()
    assert (call.arguments["from_time"], call.arguments["to_time"]) == ("2026-11-24T00:00:00Z", None)


def test_list_comes_as_csv(gateway: Any, services: Any) -> None:
    services.answer("ledger", "list_orders", {"items": [ORDER], "next_cursor": None})
    answer = gateway.bob.get("/api/v1/orders", headers={"Accept": "text/csv"})
    head, row, *_ = answer.text.splitlines()
    assert head.lstrip("\ufeff").split(",") == list(ORDER)
    assert row.split(",")[:6] == ["P-1", AURORA, "user-1", "purchase", "12.50", "CNY"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("", NEW),
        ("/P-1/settle", {}),
        ("/P-1/fail", {}),
        ("/P-1/refund", {"reason": "x"}),
    ],
)
def test_acts_need_operate_and_an_idempotency_key(gateway: Any, services: Any, path: str, body: Any) -> None:
    assert gateway.dora.post(f"/api/v1/orders{path}", json=body, headers=KEY).status_code == 403
    answer = gateway.bob.post(f"/api/v1/orders{path}", json=body)
    assert (answer.status_code, answer.json["code"]) == (422, "idempotency_key_required")
    assert [call for call in services.calls if call.service == "ledger"] == []


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("", NEW | {"amount": 12.5}, "amount"),
        ("", NEW | {"amount": "12.501"}, "amount"),
        ("", NEW | {"kind": "gift"}, "kind"),
        ("", NEW | {"fee": "1"}, "fee"),
        ("/P-1/refund", {}, "reason"),
        ("/P-1/refund", {"reason": " "}, "reason"),
        ("/P-1/refund", {"reason": "x", "amount": 1}, "amount"),
        ("/P-1/settle", {"upstream_ref": ""}, "upstream_ref"),
        ("/P-1/fail", {"colour": "red"}, "colour"),
    ],
)
def test_wrong_body_is_refused_by_field(gateway: Any, path: str, body: Any, field: str) -> None:
    answer = gateway.bob.post(f"/api/v1/orders{path}", json=body, headers=KEY)
    assert (answer.status_code, list(answer.json["errors"])) == (422, [field])


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (OrderNotFound(), 404, "order_not_found"),
        (RefundTooLarge(refundable="1.00", currency="CNY"), 409, "refund_too_large"),
    ],
)
def test_refusals_are_problems(gateway: Any, services: Any, refusal: Any, status: int, code: str) -> None:
    services.answer("ledger", "refund_order", refusal)
    answer = gateway.bob.post("/api/v1/orders/P-1/refund", json={"reason": "x"}, headers=KEY)
    assert (answer.status_code, answer.json["code"]) == (status, code)


def test_taken_number_is_a_conflict_that_tells_nothing_of_its_order(gateway: Any, services: Any) -> None:
    services.answer("ledger", "create_order", OrderNumberTaken())
    answer = gateway.bob.post("/api/v1/orders", json=NEW | {"order_no": "P-1"}, headers=KEY)
    assert (answer.status_code, answer.json["code"]) == (409, "order_number_taken")
    assert set(answer.json) == {"type", "title", "status", "detail", "code", "request_id"}
