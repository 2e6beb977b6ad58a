"""The routes of cards: their shapes, their permissions, and that no full number leaves by the wrong door."""

import pytest

from shared.contracts.cards import CardIsClosed

CARD = {
    "id": "car_1",
    "number_masked": "411111******1111",
    "last4": "1111",
    "bin": "411111",
    "brand": "visa",
    "holder_name": "Ada Lovelace",
    "currency": "CNY",
    "expiry": "2029-05",
    "status": "inactive",
    "status_reason": None,
    "merchant_id": None,
    "balance": "0",
    "limits": {"max_amount": None, "daily_amount": None, "daily_count": None, "monthly_amount": None},
    "created_at": "2026-11-24T08:00:00Z",
    "updated_at": "2026-11-24T08:00:00Z",
}
NUMBER = "4111111111111111"


def test_a_card_is_created_with_what_the_body_says(gateway, services):
    services.answer("cards", "create_card", CARD)
    body = {"number": "4111 1111 1111 1111", "holder_name": "Ada Lovelace", "currency": "CNY", "expiry": "05/29"}
    answer = gateway.bob.post("/api/v1/cards", json=body)
    assert (answer.status_code, answer.json) == (201, CARD)
    [call] = services.calls_of("cards", "create_card")
    assert call.arguments == body | {"bin": None, "merchant_id": None}


@pytest.mark.parametrize(
    "change",
    [
        {"number": 4111111111111111},
        {"currency": "XXZ"},
        {"cvv": "123"},
        {"holder_name": ""},
        {"bin": "1"},
        {"expiry": 5},
    ],
)
def test_a_wrong_body_is_refused_and_its_number_not_repeated(gateway, services, change):
    body = {"number": NUMBER, "holder_name": "Ada", "currency": "CNY"} | change
    answer = gateway.alice.post("/api/v1/cards", json=body)
    assert answer.status_code == 422
    assert set(change) & set(answer.json["errors"])
    assert NUMBER not in answer.text
    assert services.calls_of("cards", "create_card") == []


def test_each_filter_reaches_the_service(gateway, services):
    services.answer("cards", "list_cards", {"items": [CARD], "next_cursor": None})
    filters = {"q": "ada", "status": "active", "merchant_id": "m", "brand": "visa", "currency": "CNY", "last4": "1111"}
    assert gateway.dora.get("/api/v1/cards", query_string=filters).json["items"] == [CARD]
    [call] = services.calls_of("cards", "list_cards")
    assert call.arguments == filters | {"limit": 50, "cursor": None}


def test_a_full_number_is_searched_in_the_body(gateway, services):
    services.answer("cards", "search_card", {"items": [CARD], "next_cursor": None})
    answer = gateway.dora.post("/api/v1/cards/search", json={"number": NUMBER})
    assert answer.json == {"items": [CARD], "next_cursor": None}
    assert NUMBER not in answer.text


def test_assignments_reach_the_service(gateway, services):
    services.answer("cards", "assign_card", CARD)
    services.answer("cards", "assign_cards", {"items": [CARD], "changed": 1})
    assert gateway.alice.put("/api/v1/cards/car_1/merchant", json={"merchant_id": None}).json == CARD
    assert gateway.alice.put("/api/v1/cards/car_1/merchant", json={}).status_code == 422
    body = {"card_ids": ["car_1"], "merchant_id": "mer_1"}
    assert gateway.alice.post("/api/v1/cards/assign", json=body).json["changed"] == 1
    for card_ids in ([], ["c"] * 1001, "car_1", [1]):
        answer = gateway.alice.post("/api/v1/cards/assign", json=body | {"card_ids": card_ids})
        assert answer.status_code == 422
    assert len(services.calls_of("cards", "assign_cards")) == 1


def test_reveal_is_for_administrators_with_a_reason_and_is_not_cached(gateway, services):
    services.answer("cards", "reveal_card", {"id": "car_1", "number": NUMBER, "expiry": "2029-05"})
    assert gateway.bob.post("/api/v1/cards/car_1/reveal", json={"reason": "x"}).status_code == 403
    assert gateway.alice.post("/api/v1/cards/car_1/reveal", json={"reason": " "}).status_code == 422
    answer = gateway.alice.post("/api/v1/cards/car_1/reveal", json={"reason": "The holder asked."})
    assert answer.json["number"] == NUMBER
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("verb", "body"),
    [("activate", None), ("freeze", {"reason": "x"}), ("unfreeze", None), ("close", {"reason": "x"})],
)
def test_each_verb_needs_operate_and_passes_refusals_on(gateway, services, verb, body):
    services.answer("cards", f"{verb}_card", CardIsClosed())
    path = f"/api/v1/cards/car_1/{verb}"
    assert gateway.dora.post(path, json=body).status_code == 403
    answer = gateway.bob.post(path, json=body)
    assert (answer.status_code, answer.json["code"]) == (409, "card_closed")
    if body:
        assert gateway.bob.post(path, json={}).status_code == 422
