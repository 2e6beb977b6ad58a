"""The routes of the ledger: their shapes, their permissions, and what of a request reaches the service."""

from typing import Any

import pytest

from shared.contracts.ledger import InsufficientBalance
from tests.gateway.people import AURORA

ENTRY = {
    "entry_id": "ent_1_1",
    "user_id": "user-1",
    "holder_type": "user",
    "holder_id": "user-1",
    "merchant_id": AURORA,
    "amount": "12.50",
    "currency": "CNY",
    "order_no": "P-1",
    "balance": "12.50",
    "version": 1,
    "type": 321,
    "type_name": "Recharge",
    "group": "Recharge/Withdrawal",
    "time": "2026-11-24T08:00:00.000000Z",
    "operator": "Alice",
    "channel": "alipay",
    "note": "=1+1",
    "reason": None,
}
ACCOUNT = {
    "user_id": "user-1",
    "holder_type": "user",
    "holder_id": "user-1",
    "merchant_id": AURORA,
    "currency": "CNY",
    "wallet": "balance",
    "balance": "12.50",
    "held": "0",
    "available": "12.50",
    "version": 1,
    "updated_at": "2026-11-24T08:00:00.000000Z",
}
CHANGE = {"merchant_id": AURORA, "user_id": "user-1", "type": 321, "amount": "12.50", "currency": "CNY"}
KEY = {"Idempotency-Key": "k-1"}


def test_change_is_posted_as_the_body_says(gateway: Any, services: Any) -> None:
    services.answer("ledger", "post_balance_change", ENTRY)
    answer = gateway.bob.post("/api/v1/balance-changes", json=CHANGE | {"order_no": "P-1"}, headers=KEY)
    assert (answer.status_code, answer.json) == (201, ENTRY)
    [call] = services.calls_of("ledger", "post_balance_change")
    assert call.arguments == CHANGE | {"order_no": "P-1"}
    assert call.idempotency_key == "k-1"


def test_refusal_of_the_ledger_is_a_problem(gateway: Any, services: Any) -> None:
    services.answer("ledger", "post_balance_change", InsufficientBalance(available="0", currency="CNY"))
    answer = gateway.bob.post("/api/v1/balance-changes", json=CHANGE, headers=KEY)
    assert (answer.status_code, answer.json["code"]) == (409, "insufficient_balance")


@pytest.mark.parametrize("path", ["/api/v1/balance-changes", "/api/v1/balance-changes/batch"])
def test_money_needs_an_idempotency_key(gateway: Any, services: Any, path: str) -> None:
    answer = gateway.bob.post(path, json=CHANGE)
    assert (answer.status_code, answer.json["code"]) == (422, "idempotency_key_required")
    assert services.calls_of("ledger", "post_balance_change") == []


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"amount": 12.5}, "amount"),
        ({"amount": "12.501"}, "amount"),
        ({"type": "321"}, "type"),
        ({"type": 321.0}, "type"),
        ({"colour": "red"}, "colour"),
        ({"currency": "XXZ"}, "currency"),
    ],
)
def test_wrong_body_is_refused_by_field(gateway: Any, wrong: dict[str, Any], field: str) -> None:
    answer = gateway.bob.post("/api/v1/balance-changes", json=CHANGE | wrong, headers=KEY)
    assert answer.status_code == 422
    assert field in answer.json["errors"]


def test_batch_reaches_the_ledger_and_its_answer_the_client_unread(gateway: Any, services: Any) -> None:
    services.answer("ledger", "post_balance_changes", '{"whatever": "it says"}')
    body = {"changes": [CHANGE, {"whatever": 1.5}], "atomic": False}
    answer = gateway.bob.post("/api/v1/balance-changes/batch", json=body, headers=KEY)
    assert (answer.status_code, answer.text) == (200, '{"whatever": "it says"}')
    assert answer.content_type == "application/json"
    [call] = services.calls_of("ledger", "post_balance_changes")
    assert call.arguments == body


@pytest.mark.parametrize("body", [{}, {"changes": []}, {"changes": {}}, {"changes": [CHANGE], "atomic": "yes"}])
def test_batch_without_shape_is_refused(gateway: Any, body: dict[str, Any]) -> None:
    assert gateway.bob.post("/api/v1/balance-changes/batch", json=body, headers=KEY).status_code == 422


def test_batch_is_all_or_none_unless_told_otherwise(gateway: Any, services: Any) -> None:
    services.answer("ledger", "post_balance_changes", "{}")
    gateway.bob.post("/api/v1/balance-changes/batch", json={"changes": [CHANGE]}, headers=KEY)
    assert services.calls_of("ledger", "post_balance_changes")[0].arguments["atomic"] is True


FILTERS = {
    "date": "2026-11-24",
    "user_id": "user-1",
    "holder_type": "user",
    "merchant_id": AURORA,
    "currency": "CNY",
    "order_no": "P-1",
    "min_amount": "1",
    "max_amount": "100.00",
}


def test_each_filter_of_the_log_reaches_the_ledger(gateway: Any, services: Any) -> None:
    services.answer("ledger", "list_balance_logs", {"items": [ENTRY], "next_cursor": None})
    query = FILTERS | {"type": ["321", "Admin Adjust"], "group": ["Purchase"], "limit": 7}
    answer = gateway.dora.get("/api/v1/balance-logs", query_string=query)
    assert answer.json == {"items": [ENTRY], "next_cursor": None}
    [call] = services.calls_of("ledger", "list_balance_logs")
    assert call.arguments == query | {"cursor": None, "from_time": None, "to_time": None}


def test_range_reaches_the_ledger_in_utc(gateway: Any, services: Any) -> None:
    services.answer("ledger", "summarize_balance_logs", {"items": [], "totals": []})
    query = {"from": "2026-11-24T08:00:00+08:00", "to": "2026-11-25T00:00:00Z"}
    assert gateway.dora.get("/api/v1/balance-logs/summary", query_string=query).status_code == 200
    [call] = services.calls_of("ledger", "summarize_balance_logs")
    assert call.arguments == {"from_time": "2026-11-24T00:00:00Z", "to_time": "2026-11-25T00:00:00Z"}


@pytest.mark.parametrize(
    "query",
    [
        {"date": "24.11.2026"},
        {"min_amount": "a"},
        {"from": "now"},
        {"colour": "red"},
        {"limit": "501"},
        {"currency": ["CNY", "JPY"]},
        {"cursor": ["a", "a"]},
    ],
)
def test_wrong_filter_is_refused(gateway: Any, query: dict[str, Any]) -> None:
    assert gateway.dora.get("/api/v1/balance-logs", query_string=query).status_code == 422


def test_log_is_there_as_csv_with_formulas_defused(gateway: Any, services: Any) -> None:
    services.answer("ledger", "list_balance_logs", {"items": [ENTRY], "next_cursor": None})
    answer = gateway.dora.get("/api/v1/balance-logs", headers={"Accept": "text/csv"})
    header, row = answer.text.splitlines()
    assert header.split(",") == list(ENTRY)
    assert "'=1+1" in row


def test_accounts_and_trial_balance_are_shown(gateway: Any, services: Any) -> None:
    services.answer("ledger", "list_accounts", {"items": [ACCOUNT], "next_cursor": None})
    services.answer("ledger", "list_user_accounts", [ACCOUNT])
    trial = {"currency": "CNY", "sum": "0", "holders": "1.00", "system": "-1.00", "system_accounts": []}
    services.answer("ledger", "read_trial_balance", {"items": [trial]})
    assert gateway.dora.get("/api/v1/accounts").json["items"] == [ACCOUNT]
    assert gateway.dora.get("/api/v1/accounts/user-1").json == {"items": [ACCOUNT], "next_cursor": None}
    assert gateway.dora.get("/api/v1/trial-balance").json == {"items": [trial], "next_cursor": None}


def test_balance_types_are_shown(gateway: Any, services: Any) -> None:
    recharge = {
        "code": 321,
        "name": "Recharge",
        "group": "Recharge/Withdrawal",
        "sign": "positive",
        "order_no": "required",
        "is_admin": False,
    }
    services.answer("ledger", "list_balance_types", [recharge])
    assert gateway.dora.get("/api/v1/balance-types").json["items"] == [recharge]


@pytest.mark.parametrize("path", ["/api/v1/balance-changes", "/api/v1/balance-changes/batch"])
def test_auditor_moves_no_money(gateway: Any, services: Any, path: str) -> None:
    answer = gateway.dora.post(path, json=CHANGE, headers=KEY)
    assert (answer.status_code, answer.json["missing"]) == (403, "ledger:operate")
