"""Bodies and queries are read strictly: 400, 413, 415 and 422 are told apart, and nothing is converted."""

from typing import Any

import pytest

from gateway.terms import BODY_BYTES_MAX_DEFAULT
from tests.gateway.conftest import Gateway
from tests.gateway.people import FakeServices

GOOD = {"name": "desk", "amount": "12.50", "currency": "CNY"}
KEY = {"Idempotency-Key": "k"}


def post(gateway: Gateway, body: Any) -> tuple[int, dict[str, Any]]:
    response = gateway.alice.post("/api/v1/lamps", json=body, headers=KEY)
    return response.status_code, response.get_json(force=True)


def test_good_body_reaches_the_service_as_it_is(gateway: Gateway, services: FakeServices) -> None:
    services.answer("cards", "create_lamp", {"id": "l1"})
    body = GOOD | {"watts": 5, "is_lit": False, "lit_at": "2026-11-22T17:30:00+08:00"}
    assert post(gateway, body)[0] == 201
    arguments = services.calls_of("cards", "create_lamp")[0].arguments
    assert arguments == GOOD | {"watts": 5, "is_lit": False, "lit_at": "2026-11-22T09:30:00Z"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"name": 7}, "name"),
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 21}, "name"),
        ({"amount": 12.5}, "amount"),
        ({"amount": 12}, "amount"),
        ({"amount": "12.505"}, "amount"),
        ({"amount": "1e3"}, "amount"),
        ({"amount": "NaN"}, "amount"),
        ({"amount": " 1"}, "amount"),
        ({"amount": "1\n"}, "amount"),
        ({"amount": "012"}, "amount"),
        ({"amount": "9999999999999999999"}, "amount"),
        ({"amount": "１２"}, "amount"),
        ({"amount": "1", "currency": "JPY", "watts": "5"}, "watts"),
        ({"amount": "1.5", "currency": "JPY"}, "amount"),
        ({"currency": "XXQ"}, "currency"),
        ({"currency": "cny"}, "currency"),
        ({"watts": 5.0}, "watts"),
        ({"watts": True}, "watts"),
        ({"watts": 0}, "watts"),
        ({"watts": 2**63}, "watts"),
        ({"is_lit": 1}, "is_lit"),
        ({"is_lit": "true"}, "is_lit"),
        ({"lit_at": "2026-11-22T09:30:00"}, "lit_at"),
        ({"lit_at": "yesterday"}, "lit_at"),
        ({"lit_at": 1700000000}, "lit_at"),
    ],
)
def test_field_that_does_not_fit_is_named(
    gateway: Gateway, services: FakeServices, changes: dict[str, Any], field: str
) -> None:
    status, problem = post(gateway, GOOD | changes)
    assert (status, problem["code"]) == (422, "invalid_request")
    assert list(problem["errors"]) == [field]
    assert not services.calls_of("cards", "create_lamp")


@pytest.mark.parametrize("digits", ["1.123456", "0.000001"])
def test_usdt_has_six_digits(gateway: Gateway, services: FakeServices, digits: str) -> None:
    services.answer("cards", "create_lamp", {"id": "l1"})
    assert post(gateway, GOOD | {"amount": digits, "currency": "USDT"})[0] == 201
    assert post(gateway, GOOD | {"amount": f"{digits}1", "currency": "USDT"})[0] == 422


def test_all_wrong_fields_are_named_at_once(gateway: Gateway) -> None:
    _, problem = post(gateway, {"amount": 1, "currency": "CNY", "colour": "red"})
    assert set(problem["errors"]) == {"name", "amount", "colour"}


@pytest.mark.parametrize("body", [[], [GOOD], "text", 1, None, True])
def test_body_that_is_no_object_is_invalid(gateway: Gateway, body: Any) -> None:
    assert gateway.alice.post("/api/v1/lamps", json=body, headers=KEY).status_code == 422


@pytest.mark.parametrize("data", [b"{", b"{'a': 1}", b"\xff\xfe", b'{"name": NaN}', b"[" * 5000, b'"\\ud800"', b"{}x"])
def test_what_is_not_json_is_a_400(gateway: Gateway, data: bytes) -> None:
    response = gateway.alice.post("/api/v1/lamps", data=data, content_type="application/json", headers=KEY)
    assert (response.status_code, response.get_json(force=True)["code"]) == (400, "malformed_request")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "text/csv", ""])
def test_other_content_types_are_a_415(gateway: Gateway, content_type: str) -> None:
    response = gateway.alice.post("/api/v1/lamps", data=b"{}", content_type=content_type, headers=KEY)
    assert (response.status_code, response.get_json(force=True)["code"]) == (415, "unsupported_media_type")


def test_missing_body_is_a_422_that_names_what_lacks(gateway: Gateway) -> None:
    response = gateway.alice.post("/api/v1/lamps", headers=KEY)
    assert response.status_code == 422
    assert {"name", "amount", "currency"} == set(response.get_json(force=True)["errors"])


def test_nul_is_refused_wherever_it_stands(gateway: Gateway, services: FakeServices) -> None:
    assert post(gateway, GOOD | {"name": "a\x00b"})[0] == 422
    assert gateway.alice.get("/api/v1/lamps?name=a%00b").status_code == 422
    assert not [call for call in services.calls if call.service == "cards"]


def test_body_over_the_routes_limit_is_a_413(gateway: Gateway, services: FakeServices) -> None:
    services.answer("cards", "break_lamp", {"id": "l1"})
    padding = " " * BODY_BYTES_MAX_DEFAULT
    small = gateway.alice.post(
        "/api/v1/lamps/l1/break", data='{"reason": "x"}' + padding, content_type="application/json"
    )
    assert (small.status_code, small.get_json(force=True)["code"]) == (413, "payload_too_large")

    services.answer("cards", "create_lamp", {"id": "l1"})
    large = gateway.alice.post(
        "/api/v1/lamps",
        data='{"name": "a", "amount": "1", "currency": "CNY"}' + padding,
        content_type="application/json",
        headers=KEY,
    )
    assert large.status_code == 201


def test_route_that_takes_no_body_takes_an_empty_object_only(gateway: Gateway, services: FakeServices) -> None:
    services.answer("cards", "light_lamp", {"id": "l1"})
    path = "/api/v1/lamps/l1/light"
    assert gateway.alice.post(path).status_code == 200
    assert gateway.alice.post(path, json={}).status_code == 200
    refused = gateway.alice.post(path, json={"force": True})
    assert (refused.status_code, refused.get_json(force=True)["errors"]) == (422, {"force": ["Unknown field."]})


@pytest.mark.parametrize("reason", [None, "", "   ", "x" * 501, 7])
def test_reason_is_required_and_says_something(gateway: Gateway, reason: Any) -> None:
    body = {} if reason is None else {"reason": reason}
    response = gateway.alice.post("/api/v1/lamps/l1/break", json=body)
    assert (response.status_code, list(response.get_json(force=True)["errors"])) == (422, ["reason"])


def test_answer_is_cut_to_what_the_schema_publishes(gateway: Gateway, services: FakeServices) -> None:
    view = {"id": "l1", "name": "desk", "secret": "hunter2", "bulbs": [{"watts": 5, "secret": "hunter2"}]}
    services.answer("users", "show_my_lamp", view)
    answer = gateway.alice.get("/api/v1/lamps/mine").get_json()
    assert answer == {"id": "l1", "name": "desk", "bulbs": [{"watts": 5}]}


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=501", "limit=x", "limit=1.0", "limit=", "limit=1_0", "limit=١", "is_lit=yes", "date=1.1.2026"],
)
def test_query_that_does_not_fit_is_a_422(gateway: Gateway, query: str) -> None:
    assert gateway.alice.get(f"/api/v1/lamps?{query}").status_code == 422


def test_misspelt_filter_does_not_widen_a_list(gateway: Gateway, services: FakeServices) -> None:
    response = gateway.alice.get("/api/v1/lamps?nmae=desk")
    assert (response.status_code, response.get_json(force=True)["errors"]) == (422, {"nmae": ["Unknown field."]})
    assert not services.calls_of("cards", "list_lamps")
