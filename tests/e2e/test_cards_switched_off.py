"""Who does not use cards switches them off: their routes say so, nothing else notices, and nothing is lost."""

from collections.abc import Iterator

import pytest
import requests

from tests.e2e.conftest import ANSWER_SECONDS_MAX, Api, Platform, eventually
from tests.e2e.requests_of import Document
from tests.e2e.test_cards import make_card

PATH = "/settings/parameters/modules.cards.enabled"


def switch(platform: Platform, *, on: bool) -> None:
    version = platform.admin.get(PATH).json()["version"]
    change = {"value": on, "reason": "Nobody here uses cards.", "expected_version": version}
    answer = platform.admin.put(PATH, change)
    assert answer.status_code == 200, answer.text


def is_off(api: Api) -> bool:
    answer = api.get("/cards")
    return answer.status_code == 409 and answer.json()["code"] == "module_disabled"


@pytest.fixture
def switched_off(platform: Platform) -> Iterator[None]:
    switch(platform, on=False)
    try:
        eventually(lambda: is_off(platform.admin), within_seconds=5)
        yield
    finally:
        switch(platform, on=True)
        eventually(lambda: platform.admin.get("/cards").status_code == 200, within_seconds=5)


@pytest.fixture
def merchant_id(platform: Platform) -> str:
    return platform.merchant()


@pytest.fixture
def card(platform: Platform, merchant_id: str) -> dict:
    return make_card(platform.admin, merchant_id=merchant_id)


def test_every_route_of_cards_says_that_they_are_switched_off(platform: Platform, switched_off: None) -> None:
    routes = requests.get(f"{platform.system.url}/openapi.json", timeout=ANSWER_SECONDS_MAX).json()
    document = Document(routes, {"currency": "CNY", "amount": "1.00", "number": "4111111111111111", "bin": "411111"})
    asked = 0
    for request in document.requests(("get", "post", "put", "patch", "delete")):
        if not routes["paths"][request.path][request.method.lower()].get("x-permission", "").startswith("cards:"):
            continue
        whole = document.filled(request)
        headers = {"Idempotency-Key": f"off-{asked}"}
        body = {"data": whole.body or "bin\n1", "headers": headers | {"Content-Type": "text/csv"}}
        if whole.content_type == "application/json":
            body = {"json": whole.body, "headers": headers}
        answer = platform.admin.http.request(
            whole.method, f"{platform.system.url}{whole.path}", timeout=ANSWER_SECONDS_MAX, **body
        )
        asked += 1
        if answer.status_code != 422:  # a body that no rule fits is refused before anybody is asked
            assert (answer.status_code, answer.json()["code"]) == (409, "module_disabled"), (
                f"{whole.path} {answer.text}"
            )
    assert asked > 25


def test_nothing_else_notices(platform: Platform, merchant_id: str, switched_off: None) -> None:
    assert platform.recharge(merchant_id, "u1", "25.00").status_code == 201
    assert platform.admin.get("/accounts/u1", merchant_id=merchant_id).json()["items"][0]["balance"] == "25.00"
    for path in ("/balance-logs", "/orders", "/tasks", "/telegram/bindings", "/logs", "/users", "/settings/parameters"):
        assert platform.admin.get(path).status_code == 200, path
    assert requests.get(f"{platform.system.url}/readyz", timeout=ANSWER_SECONDS_MAX).status_code == 200
    other = platform.merchant()  # cards still hears of it, and knows it when they are switched on again
    switch(platform, on=True)
    eventually(lambda: not is_off(platform.admin), within_seconds=5)
    assert make_card(platform.admin, merchant_id=other)["merchant_id"] == other


def test_what_was_there_is_there_again_and_a_key_was_not_used_up(platform: Platform, card: dict) -> None:
    switch(platform, on=False)
    eventually(lambda: is_off(platform.admin), within_seconds=5)
    refused = platform.admin.post(f"/cards/{card['id']}/activate", key="k-switched-off")
    assert refused.json()["code"] == "module_disabled"
    switch(platform, on=True)
    eventually(lambda: not is_off(platform.admin), within_seconds=5)
    assert platform.admin.get(f"/cards/{card['id']}").json() == card
    done = platform.admin.post(f"/cards/{card['id']}/activate", key="k-switched-off")
    assert (done.status_code, done.json()["status"]) == (200, "active")


def test_who_may_not_use_cards_hears_so_first(platform: Platform, switched_off: None) -> None:
    platform.admin.post("/roles", {"name": "no_cards", "description": "", "permissions": {"orders": "read"}})
    nobody = platform.person(roles=["no_cards"], merchants="all")
    assert nobody.get("/cards").status_code == 403
