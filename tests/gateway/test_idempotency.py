"""The header Idempotency-Key, and answers that are the same byte for byte."""

import orjson
import pytest

from shared import errors
from shared.rpc.wire import Answer
from tests.gateway.conftest import Gateway
from tests.gateway.people import FakeServices

LAMP = {"name": "desk", "amount": "12.50", "currency": "CNY"}
VIEW = {"id": "l1", "currency": "CNY", "amount": "12.50", "name": "desk", "bulbs": [{"watts": 5}]}


def test_route_that_moves_money_requires_a_key(gateway: Gateway, services: FakeServices) -> None:
    response = gateway.alice.post("/api/v1/lamps", json=LAMP)
    assert (response.status_code, response.get_json(force=True)["code"]) == (422, "idempotency_key_required")
    assert not services.calls_of("cards", "create_lamp")


def test_key_reaches_the_service(gateway: Gateway, services: FakeServices) -> None:
    services.answer("cards", "create_lamp", VIEW)
    response = gateway.alice.post("/api/v1/lamps", json=LAMP, headers={"Idempotency-Key": "row-1"})
    assert response.status_code == 201
    assert "Idempotent-Replayed" not in response.headers
    assert services.calls_of("cards", "create_lamp")[0].idempotency_key == "row-1"


@pytest.mark.parametrize("path", ["/api/v1/lamps/l1/light", "/api/v1/lamps/password"])
def test_key_is_honoured_on_posts_that_do_not_require_it(gateway: Gateway, services: FakeServices, path: str) -> None:
    services.answer("cards", "light_lamp", VIEW)
    services.answer("users", "change_lamp_password", None)
    gateway.alice.post(path, headers={"Idempotency-Key": "k"})
    assert services.calls[-1].idempotency_key == "k"


def test_key_is_not_passed_on_for_a_caller_whom_nobody_knows(gateway: Gateway, services: FakeServices) -> None:
    services.answer("cards", "touch_lamp", VIEW)
    gateway.nobody.post("/api/v1/lamps/public", headers={"Idempotency-Key": "k"})
    assert services.calls[-1].idempotency_key is None


def test_replayed_answer_has_the_same_bytes_and_says_so(gateway: Gateway, services: FakeServices) -> None:
    headers = {"Idempotency-Key": "row-1"}
    services.answer("cards", "create_lamp", VIEW)
    first = gateway.alice.post("/api/v1/lamps", json=LAMP, headers=headers)
    # What comes out of the store may have its keys in another order.
    stored = orjson.loads(orjson.dumps(VIEW, option=orjson.OPT_SORT_KEYS))
    services.answer("cards", "create_lamp", Answer(stored, is_replayed=True))
    second = gateway.alice.post("/api/v1/lamps", json=LAMP, headers=headers)

    assert (second.status_code, second.data) == (first.status_code, first.data)
    assert second.headers["Idempotent-Replayed"] == "true"


def test_replayed_refusal_has_the_same_bytes_and_says_so(gateway: Gateway, services: FakeServices) -> None:
    headers = {"Idempotency-Key": "row-1"}
    services.answer("cards", "create_lamp", errors.Conflict("Too little money."))
    first = gateway.alice.post("/api/v1/lamps", json=LAMP, headers=headers)
    request_id = first.headers["X-Request-ID"]
    kept = errors.Conflict("Too little money.", request_id=request_id, is_replayed=True)
    services.answer("cards", "create_lamp", kept)
    second = gateway.alice.post("/api/v1/lamps", json=LAMP, headers=headers)

    assert (second.status_code, second.data) == (first.status_code, first.data) == (409, first.data)
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.headers["X-Request-ID"] != request_id


@pytest.mark.parametrize("key", ["", " ", "two words", "x" * 256, "schlüssel"])
def test_insane_key_is_refused(gateway: Gateway, services: FakeServices, key: str) -> None:
    response = gateway.alice.post("/api/v1/lamps", json=LAMP, headers={"Idempotency-Key": key})
    assert (response.status_code, response.get_json(force=True)["code"]) == (422, "invalid_idempotency_key")
    assert not services.calls_of("cards", "create_lamp")
