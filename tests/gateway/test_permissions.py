"""What a route asks for is declared above it, and nothing is open by forgetting."""

from typing import Any

import pytest

from gateway.blueprint import Blueprint
from gateway.terms import needs
from shared.permissions import MODULES
from tests.gateway.conftest import Gateway
from tests.gateway.people import FakeServices


def test_route_without_terms_does_not_start() -> None:
    blueprint = Blueprint("open", __name__, description="")
    with pytest.raises(TypeError, match="declares none"):

        @blueprint.get("/open")
        def open_route() -> None:
            """Be open to everyone by forgetting."""


@pytest.mark.parametrize("permission", ["cards", "cards:write", "card:read", "cards:none", ":", ""])
def test_permission_that_does_not_exist_cannot_be_asked_for(permission: str) -> None:
    with pytest.raises(ValueError, match="no such permission"):
        needs(permission)


@pytest.mark.parametrize(
    ("person", "method", "path", "status"),
    [
        ("alice", "POST", "/api/v1/lamps/l1/break", 200),
        ("bob", "POST", "/api/v1/lamps/l1/break", 403),
        ("dora", "POST", "/api/v1/lamps/l1/break", 403),
        ("bob", "POST", "/api/v1/lamps/l1/light", 200),
        ("dora", "POST", "/api/v1/lamps/l1/light", 403),
        ("dora", "GET", "/api/v1/lamps", 200),
    ],
)
def test_level_opens_what_it_includes(
    gateway: Gateway, services: FakeServices, person: str, method: str, path: str, status: int
) -> None:
    for name in ("break_lamp", "light_lamp"):
        services.answer("cards", name, {"id": "l1"})
    services.answer("cards", "list_lamps", {"items": [], "next_cursor": None})
    body: Any = {"reason": "why not"} if path.endswith("break") else None

    response = gateway.signed_in(person).open(path, method=method, json=body)

    assert response.status_code == status
    if status == 403:
        assert response.get_json(force=True)["missing"] == ("cards:admin" if "break" in path else "cards:operate")
        assert not [call for call in services.calls if call.service == "cards"]


def test_permission_comes_before_the_body(gateway: Gateway) -> None:
    assert gateway.dora.post("/api/v1/lamps/l1/break", json={"nonsense": 1}).status_code == 403


def test_catalogue_is_read_off_the_routes(gateway: Gateway) -> None:
    catalogue = gateway.dora.get("/api/v1/permissions").get_json()["items"]

    assert [entry["module"] for entry in catalogue] == list(MODULES)
    levels = {level["level"]: level["operations"] for level in catalogue[0]["levels"]}
    assert list(levels) == ["read", "operate", "admin"]
    broken = [o for o in levels["admin"] if o["path"] == "/api/v1/lamps/{lamp_id}/break"]
    assert broken == [
        {
            "operation_id": "lamps.break_lamp",
            "method": "POST",
            "path": "/api/v1/lamps/{lamp_id}/break",
            "summary": "Break a lamp.",
        }
    ]


def test_catalogue_needs_a_sign_in(gateway: Gateway) -> None:
    assert gateway.nobody.get("/api/v1/permissions").status_code == 401
