"""The routes of settings: their shapes, and who may change what."""

from typing import Any

import pytest

from shared.contracts.settings import StaleVersion
from tests.gateway.conftest import Gateway
from tests.gateway.people import FakeServices

KEY = "ledger.large_change_threshold"
PATH = f"/api/v1/settings/parameters/{KEY}"
PARAMETER = {
    "key": KEY,
    "type": "decimal",
    "value": "500.00",
    "version": 1,
    "default": "10000.00",
    "description": "What counts as large.",
    "unit": "amount",
    "bounds": {"minimum": "0.01"},
    "affects": ["ledger"],
    "updated_at": "2026-11-24T08:00:00Z",
    "updated_by": "alice",
}
CHANGE = {"value": "500.00", "reason": "Busy season", "expected_version": 0}


def test_parameters_are_listed_and_shown(gateway: Gateway, services: FakeServices) -> None:
    services.answer("settings", "list_parameters", {"items": [PARAMETER], "next_cursor": None})
    services.answer("settings", "get_parameter", PARAMETER)
    assert gateway.bob.get("/api/v1/settings/parameters").json == {"items": [PARAMETER], "next_cursor": None}
    assert gateway.bob.get(PATH).json == PARAMETER
    (call,) = services.calls_of("settings", "get_parameter")
    assert call.arguments == {"key": KEY}


def test_change_reaches_the_service_as_it_was_sent(gateway: Gateway, services: FakeServices) -> None:
    services.answer("settings", "change_parameter", PARAMETER)
    assert gateway.alice.put(PATH, json=CHANGE).json == PARAMETER
    (call,) = services.calls_of("settings", "change_parameter")
    assert call.arguments == CHANGE | {"key": KEY}


@pytest.mark.parametrize("value", ["text", 5, True])
def test_value_keeps_its_type_on_the_way(gateway: Gateway, services: FakeServices, value: Any) -> None:
    services.answer("settings", "change_parameter", PARAMETER)
    gateway.alice.put(PATH, json=CHANGE | {"value": value})
    (call,) = services.calls_of("settings", "change_parameter")
    assert call.arguments["value"] is value or call.arguments["value"] == value
    assert type(call.arguments["value"]) is type(value)


@pytest.mark.parametrize(
    "change",
    [
        {"value": None},
        {"reason": ""},
        {"reason": " "},
        {"reason": "x" * 501},
        {"expected_version": "0"},
        {"expected_version": -1},
        {"version": 3},
    ],
)
def test_wrong_body_is_refused_by_its_field(gateway: Gateway, services: FakeServices, change: dict[str, Any]) -> None:
    answer = gateway.alice.put(PATH, json=CHANGE | change)
    assert answer.status_code == 422
    assert set(answer.get_json(force=True)["errors"]) == set(change)
    assert services.calls_of("settings", "change_parameter") == []


@pytest.mark.parametrize("field", ["value", "reason", "expected_version"])
def test_body_that_lacks_a_field_is_refused(gateway: Gateway, field: str) -> None:
    answer = gateway.alice.put(PATH, json={k: v for k, v in CHANGE.items() if k != field})
    assert answer.status_code == 422


def test_stale_version_is_a_conflict_that_tells_the_one_in_force(gateway: Gateway, services: FakeServices) -> None:
    services.answer("settings", "change_parameter", StaleVersion(version=4))
    answer = gateway.alice.put(PATH, json=CHANGE)
    problem = answer.get_json(force=True)
    assert (answer.status_code, problem["code"], problem["version"]) == (409, "stale_version", 4)


def test_preview_history_and_rollback_reach_the_service(gateway: Gateway, services: FakeServices) -> None:
    preview = {
        "key": KEY,
        "is_valid": True,
        "errors": [],
        "is_change": True,
        "current": "1.00",
        "proposed": "2.00",
        "affects": ["ledger"],
    }
    version = {
        "key": KEY,
        "version": 0,
        "value": "10000.00",
        "previous_value": None,
        "reason": "The default.",
        "actor_id": None,
        "actor_name": None,
        "created_at": None,
    }
    services.answer("settings", "preview_parameter", preview)
    services.answer("settings", "list_parameter_versions", {"items": [version], "next_cursor": None})
    services.answer("settings", "roll_back_parameter", PARAMETER)
    assert gateway.bob.post(f"{PATH}/preview", json={"value": "2.00"}).json == preview
    assert gateway.bob.get(f"{PATH}/history?limit=2").json == {"items": [version], "next_cursor": None}
    body = {"version": 0, "reason": "As it was"}
    assert gateway.alice.post(f"{PATH}/rollback", json=body).json == PARAMETER
    assert services.calls_of("settings", "roll_back_parameter")[0].arguments == body | {"key": KEY}
    assert gateway.alice.post(f"{PATH}/rollback", json={"version": 0}).status_code == 422


@pytest.mark.parametrize("person", ["bob", "dora"])
def test_who_may_only_read_settings_changes_none(gateway: Gateway, services: FakeServices, person: str) -> None:
    client = gateway.signed_in(person)
    for answer in (client.put(PATH, json=CHANGE), client.post(f"{PATH}/rollback", json={"version": 0, "reason": "x"})):
        assert (answer.status_code, answer.get_json(force=True)["missing"]) == (403, "settings:admin")
    assert [call for call in services.calls if call.service == "settings"] == []
