"""Whoever is disabled or demoted in the middle of work is refused within five seconds, on every route.

The routes are read off the document. The change is made straight in users, past the gateway that serves the calls, as
it would be by way of another gateway process; the token was issued before. `test_cut_in_merchants.py` is another case.
"""

import re
import secrets
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests

from operations.calls import Caller
from tests.e2e.conftest import ANSWER_SECONDS_MAX, Api, Platform

pytestmark = pytest.mark.e2e

HOLDS_SECONDS_MAX = 5


@pytest.fixture
def document(platform: Platform) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(f"{platform.anonymous.url}/openapi.json", timeout=10).json()
    return found


@pytest.fixture
def behind_the_gateway(platform: Platform) -> Callable[..., None]:
    """Change something in users as if by way of another gateway, and wait until it must hold."""

    def change(method: str, **arguments: Any) -> None:
        with Caller(platform.system) as caller:
            caller.call("users", method, **arguments)
            changed_at = time.monotonic()
        time.sleep(max(0.0, changed_at + HOLDS_SECONDS_MAX - time.monotonic()))

    return change


def closed_operations(document: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    """Return the method, an example path and the permission of each operation that asks for a token."""
    return [
        (method.upper(), re.sub(r"\{\w+\}", "x1", path).removeprefix("/api/v1"), operation.get("x-permission"))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if isinstance(operation, dict) and operation.get("security") != []
    ]


def send(api: Api, method: str, path: str, body: Any = None) -> requests.Response:
    headers = {"Idempotency-Key": secrets.token_hex(8)}
    return api.http.request(method, f"{api.url}/api/v1{path}", json=body, headers=headers, timeout=ANSWER_SECONDS_MAX)


def code_of(answer: requests.Response) -> str:
    return f"{answer.status_code} {answer.json()['code']}"


def test_disabled_user_is_refused_on_every_route(
    platform: Platform, document: dict[str, Any], behind_the_gateway: Callable[..., None]
) -> None:
    somebody, user_id = platform.person_and_id(roles=["administrator"], merchants="all")
    operations = closed_operations(document)
    assert len(operations) > 80
    assert {path for _, path, _ in operations} > {"/me", "/cards", "/balance-logs", "/auth/totp"}
    assert all(somebody.get(path).status_code == 200 for path in ("/me", "/cards", "/users"))
    behind_the_gateway("disable_user", user_id=user_id, reason="left at noon")
    codes = {(method, path): code_of(send(somebody, method, path)) for method, path, _ in operations}
    assert {row for row in codes.items() if row[1] != "401 session_over"} == set()


def test_demoted_user_is_refused_on_every_route(
    platform: Platform, document: dict[str, Any], behind_the_gateway: Callable[..., None]
) -> None:
    somebody, user_id = platform.person_and_id(roles=["administrator"], merchants="all")
    asking = [(method, path, needed) for method, path, needed in closed_operations(document) if needed]
    assert len(asking) > 70
    assert somebody.get("/cards").status_code == 200
    behind_the_gateway("update_user", user_id=user_id, changes={"roles": []})
    wrong = []
    for method, path, needed in asking:
        answer = send(somebody, method, path)
        if code_of(answer) != "403 permission_denied" or answer.json()["missing"] != needed:
            wrong.append((method, path, answer.text[:200]))
    assert wrong == []
    assert somebody.get("/me").json()["roles"] == []  # still signed in


def test_user_demoted_by_a_level_is_refused_whatever_needed_it_and_reads_on(
    platform: Platform, document: dict[str, Any], behind_the_gateway: Callable[..., None]
) -> None:
    somebody, user_id = platform.person_and_id(roles=["administrator"], merchants="all")
    asking = [(method, path, needed) for method, path, needed in closed_operations(document) if needed]
    assert somebody.post("/merchants", {"code": "X"}).status_code == 422  # let in, as far as its body
    behind_the_gateway("update_user", user_id=user_id, changes={"roles": ["auditor"]})
    wrong = []
    for method, path, needed in asking:
        is_refused = send(somebody, method, path).status_code == 403
        if is_refused is needed.endswith(":read"):
            wrong.append((method, path, needed))
    assert wrong == []
