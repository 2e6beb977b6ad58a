"""The routes of a card's money: what is asked of a caller, and what of the services' words gets through."""

import pytest

from shared.contracts.cards import CardNotEmpty
from shared.contracts.ledger import LimitExceeded
from shared.errors import OutcomeUnknown

TRANSFER = {
    "transfer_id": "ctr_1",
    "card_id": "car_1",
    "merchant_id": "mer_aurora",
    "direction": "top_up",
    "amount": "10.00",
    "currency": "CNY",
    "state": "posted",
    "balance": "10.00",
    "refusal": None,
    "requested_by": "Bob",
    "created_at": "2026-11-24T08:00:00Z",
    "settled_at": "2026-11-24T08:00:01Z",
}
ROUTES = [("top-up", "top_up_card"), ("withdraw", "withdraw_from_card")]


@pytest.mark.parametrize(("route", "method"), ROUTES)
def test_money_is_moved_under_the_callers_key(gateway, services, route, method):
    services.answer("cards", method, TRANSFER)
    answer = gateway.bob.post(
        f"/api/v1/cards/car_1/{route}", json={"amount": "10.00"}, headers={"Idempotency-Key": "k1"}
    )
    assert (answer.status_code, answer.json) == (201, TRANSFER)
    [call] = services.calls_of("cards", method)
    assert (call.arguments, call.idempotency_key) == ({"card_id": "car_1", "amount": "10.00"}, "k1")


@pytest.mark.parametrize(("route", "method"), ROUTES)
def test_no_key_no_permission_or_no_amount_moves_nothing(gateway, services, route, method):
    path, headers = f"/api/v1/cards/car_1/{route}", {"Idempotency-Key": "k1"}
    assert gateway.bob.post(path, json={"amount": "1.00"}).json["code"] == "idempotency_key_required"
    assert gateway.dora.post(path, json={"amount": "1.00"}, headers=headers).status_code == 403
    for body in ({}, {"amount": 1}, {"amount": "1e3"}, {"amount": "1.00", "currency": "CNY"}):
        assert gateway.bob.post(path, json=body, headers=headers).status_code == 422
    assert services.calls_of("cards", method) == []


def test_an_unknown_outcome_says_when_to_ask_again(gateway, services):
    services.answer("cards", "top_up_card", OutcomeUnknown("Ask again.", transfer_id="ctr_1", retry_after_seconds=1))
    answer = gateway.bob.post("/api/v1/cards/car_1/top-up", json={"amount": "1.00"}, headers={"Idempotency-Key": "k1"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert (answer.json["code"], answer.json["transfer_id"]) == ("outcome_unknown", "ctr_1")


def test_a_limit_is_named(gateway, services):
    services.answer("cards", "top_up_card", LimitExceeded("Too much.", limit="daily_amount", allowed="5.00"))
    answer = gateway.bob.post("/api/v1/cards/car_1/top-up", json={"amount": "9.00"}, headers={"Idempotency-Key": "k1"})
    assert (answer.status_code, answer.json["code"]) == (409, "limit_exceeded")
    assert (answer.json["limit"], answer.json["allowed"]) == ("daily_amount", "5.00")


def test_a_card_with_money_does_not_close(gateway, services):
    services.answer("cards", "close_card", CardNotEmpty("The card holds 1.00 CNY.", card_ids=["car_1"]))
    answer = gateway.bob.post("/api/v1/cards/car_1/close", json={"reason": "done"})
    assert (answer.status_code, answer.json["code"]) == (409, "card_not_empty")


def test_the_log_of_a_card_takes_its_filters_and_leaves_as_csv(gateway, services):
    services.answer("cards", "list_card_balance_logs", {"items": [], "next_cursor": None})
    query = {"from": "2026-11-01T00:00:00Z", "to": "2026-12-01T00:00:00Z", "type": ["511", "512"], "limit": 5}
    assert gateway.dora.get("/api/v1/cards/car_1/balance-logs", query_string=query).json["items"] == []
    [call] = services.calls_of("cards", "list_card_balance_logs")
    assert call.arguments == {
        "card_id": "car_1",
        "from_time": "2026-11-01T00:00:00Z",
        "to_time": "2026-12-01T00:00:00Z",
        "type": ["511", "512"],
        "limit": 5,
        "cursor": None,
    }
    answer = gateway.dora.get("/api/v1/cards/car_1/balance-logs", headers={"Accept": "text/csv"})
    assert answer.text.splitlines()[0].startswith("entry_id,user_id,holder_type")


def test_the_transfers_of_a_card_are_listed(gateway, services):
    services.answer("cards", "list_card_transfers", {"items": [TRANSFER], "next_cursor": "c"})
    answer = gateway.dora.get("/api/v1/cards/car_1/transfers?limit=1")
    assert answer.json == {"items": [TRANSFER], "next_cursor": "c"}


@pytest.mark.parametrize("limits", [{"daily_count": -1}, {"daily_count": "1"}, {"max_amount": 1}, {"yearly": "1"}, []])
def test_what_is_no_limit_is_refused(gateway, services, limits):
    assert gateway.bob.patch("/api/v1/cards/car_1", json={"limits": limits}).status_code == 422
    assert services.calls_of("cards", "update_card") == []
