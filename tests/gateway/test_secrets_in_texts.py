"""No card number and no token gets past the edge in a field that is not its own."""

from typing import Any

import pytest

from tests.gateway.conftest import Gateway
from tests.gateway.people import FakeServices

CARD = "4111 1111 1111 1111"
TOKEN = "chr_c2VjcmV0c2VjcmV0c2VjcmV0"
CHANGE = {"merchant_id": "mer_1", "type": 321, "amount": "1.00", "currency": "CNY", "order_no": "4111111111111111"}


@pytest.mark.parametrize(("secret", "code"), [(CARD, "card_number_in_text"), (TOKEN, "token_in_text")])
@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/api/v1/cards/car_1/freeze", {"reason": "I lost {}."}, "reason"),
        ("/api/v1/cards", {"holder_name": "{}", "currency": "CNY", "bin": "411111"}, "holder_name"),
        ("/api/v1/cards/assign", {"card_ids": ["car_1", "{}"], "merchant_id": "mer_1"}, "card_ids"),
        ("/api/v1/balance-changes", CHANGE | {"note": "{}"}, "note"),
        ("/api/v1/balance-changes/batch", {"changes": [CHANGE, CHANGE | {"reason": "{}"}]}, "changes"),
        ("/api/v1/tasks/balance_check/run", {"params": {"why": ["{}"]}}, "params"),
    ],
)
def test_secret_in_a_text_is_refused_and_not_repeated(
    gateway: Gateway, services: FakeServices, path: str, body: Any, field: str, secret: str, code: str
) -> None:
    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: filled(v) for k, v in value.items()}
        if isinstance(value, list):
            return [filled(v) for v in value]
        return value.replace("{}", secret) if isinstance(value, str) else value

    response = gateway.alice.post(path, json=filled(body), headers={"Idempotency-Key": "k"})

    problem = response.get_json(force=True)
    assert (response.status_code, problem["code"], list(problem["errors"])) == (422, code, [field])
    assert secret not in response.text
    assert not [call for call in services.calls if call.service in ("cards", "ledger", "tasks")]


def test_order_number_of_digits_is_taken_whatever_it_looks_like(gateway: Gateway, services: FakeServices) -> None:
    services.answer("ledger", "post_balance_change", {})

    response = gateway.alice.post("/api/v1/balance-changes", json=CHANGE, headers={"Idempotency-Key": "k"})

    assert response.status_code == 201
    [call] = [call for call in services.calls if call.service == "ledger"]
    assert call.arguments["order_no"] == "4111111111111111"


def test_card_number_and_password_are_taken_in_their_own_fields(gateway: Gateway, services: FakeServices) -> None:
    services.answer("cards", "search_card", {"items": [], "next_cursor": None})
    services.answer("users", "change_password", None)
    passwords = {"current_password": CARD, "new_password": TOKEN}

    assert gateway.alice.post("/api/v1/cards/search", json={"number": CARD}).status_code == 200
    assert gateway.alice.post("/api/v1/auth/password", json=passwords).status_code == 204


def test_secret_as_the_name_of_a_field_is_not_repeated(gateway: Gateway) -> None:
    for path in ("/api/v1/cards", "/api/v1/cards/car_1/activate"):
        response = gateway.alice.post(path, json={CARD: "x", TOKEN: "x"})
        assert response.status_code == 422
        assert CARD not in response.text
        assert TOKEN not in response.text


def test_query_may_look_for_anything(gateway: Gateway, services: FakeServices) -> None:
    services.answer("audit", "list_logs", {"items": [], "next_cursor": None})
    assert gateway.alice.get("/api/v1/logs", query_string={"q": "4111111111111111"}).status_code == 200


def test_request_id_and_user_agent_carry_no_secret_further(gateway: Gateway, services: FakeServices) -> None:
    services.answer("cards", "get_card", {})
    headers = {"X-Request-ID": "4111111111111111", "User-Agent": f"curl {CARD} {TOKEN}"}

    response = gateway.alice.get("/api/v1/cards/car_1", headers=headers)

    assert response.headers["X-Request-ID"].startswith("req_")
    [call] = [call for call in services.calls if call.service == "cards"]
    assert call.passport.user_agent == "curl ***1111 ***"
