"""Whoever is cut in merchants in the middle of work finds nothing of them within five seconds, on any route."""

import secrets
from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.e2e import test_every_merchant
from tests.e2e.conftest import Api, Platform
from tests.e2e.test_cut_off_at_work import behind_the_gateway, document, send
from tests.e2e.test_every_merchant import NOT_FOUND, Foreign, Route, is_secretive, ok, questions, routes_of

__all__ = ["behind_the_gateway", "document"]  # fixtures

pytestmark = pytest.mark.e2e


@pytest.fixture
def canary(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> str:
    """The word in every name of the merchant that is cut off, which is another one than in `test_every_merchant`."""
    canary, channel = secrets.token_hex(4), f"cut-{secrets.token_hex(4)}"
    monkeypatch.setattr(test_every_merchant, "CANARY", canary)
    monkeypatch.setattr(test_every_merchant, "CHANNEL", channel)
    ok(platform.admin.post("/channels", {"code": channel, "name": "A payment platform", "kind": "statement"}))
    return canary


def test_user_cut_in_merchants_finds_nothing_of_them_on_any_route(
    platform: Platform, document: dict[str, Any], behind_the_gateway: Callable[..., None], canary: str
) -> None:
    routes = [route for route in routes_of(document) if not is_secretive(route)]
    cut_off, own = Foreign(platform), platform.merchant()
    cut_off.make()
    somebody, user_id = platform.person_and_id(roles=["administrator"], merchants=[own, cut_off.merchant_id])
    named = [r for r in routes if r.has_parameter and not r.is_platforms and _is_known(cut_off, r)]
    opened = [r.template for r in named if r.method == "GET" and _visit(somebody, cut_off, r).status_code == 200]
    assert {"/cards/{card_id}", "/orders/{order_no}", "/accounts/{user_id}", "/merchants/{merchant_id}"} <= set(opened)
    told = [path for path, query in questions(routes) if canary in somebody.get(path, **query).text]
    assert {"/cards", "/orders", "/balance-logs"} <= set(told)

    behind_the_gateway("update_user", user_id=user_id, changes={"merchants": [own]})
    still_open = [
        (route.method, route.template, answer.text[:200])
        for route in named
        if (answer := _visit(somebody, cut_off, route)).status_code not in NOT_FOUND
    ]
    assert still_open == []
    told = [path for path, query in questions(routes) if canary in somebody.get(path, **query).text]
    assert set(told) <= {"/logs"}
    rows = somebody.get("/logs", limit=200).json()["items"]  # where one's own calls stay, with what they named
    assert [row for row in rows if canary in str(row) and row["actor"] != user_id] == []


def _is_known(of: Foreign, route: Route) -> bool:
    """Return whether the merchant has what a route is about; `test_every_merchant` fails where it has not."""
    try:
        of.path_of(route.template)
    except AssertionError:
        return False
    return not route.template.startswith("/me/")


def _visit(api: Api, of: Foreign, route: Route) -> requests.Response:
    body = None if route.body is None else of.body_of(route.body)
    return send(api, route.method, of.path_of(route.template), body)
