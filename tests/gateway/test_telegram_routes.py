"""Telegram's routes: what reaches the service, what is refused before it, what comes back."""

from typing import Any

import pytest

from shared.contracts.telegram import BindingNotFound, ChatAlreadyBound
from tests.gateway.conftest import Gateway
from tests.gateway.people import AURORA, FakeServices

BINDINGS = "/api/v1/telegram/bindings"
NOTIFICATIONS = "/api/v1/telegram/notifications"
BINDING = {
    "id": "tgb_1",
    "merchant_id": AURORA,
    "chat_id": "-1001",
    "title": "",
    "status": "active",
    "status_reason": None,
    "language": "en",
    "created_at": "2026-11-24T08:00:00Z",
    "updated_at": "2026-11-24T08:00:00Z",
}
NEW = {"merchant_id": AURORA, "chat_id": "-1001"}


@pytest.mark.parametrize("chat_id", ["-1001", -1001])
def test_group_is_bound_by_its_id_as_text_or_number(gateway: Gateway, services: FakeServices, chat_id: Any) -> None:
    services.answer("telegram", "create_binding", BINDING)
    response = gateway.bob.post(BINDINGS, json=NEW | {"chat_id": chat_id})
    assert response.status_code == 201
    assert response.get_json() == BINDING
    [call] = services.calls_of("telegram", "create_binding")
    assert call.arguments == {"merchant_id": AURORA, "chat_id": "-1001", "title": "", "language": "en"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"chat_id": True}, "chat_id"),
        ({"chat_id": 1.5}, "chat_id"),
        ({"chat_id": None}, "chat_id"),
        ({"language": "fr"}, "language"),
        ({"title": "x" * 129}, "title"),
        ({"status": "active"}, "status"),
        ({"merchant_id": 7}, "merchant_id"),
    ],
)
def test_binding_that_is_misshapen_is_refused(
    gateway: Gateway, services: FakeServices, changes: dict[str, Any], field: str
) -> None:
    response = gateway.bob.post(BINDINGS, json=NEW | changes)
    assert response.status_code == 422
    assert field in response.get_json(force=True)["errors"]
    assert services.calls_of("telegram", "create_binding") == []


def test_taken_group_is_a_conflict(gateway: Gateway, services: FakeServices) -> None:
    services.answer("telegram", "create_binding", ChatAlreadyBound())
    response = gateway.bob.post(BINDINGS, json=NEW)
    assert (response.status_code, response.get_json(force=True)["code"]) == (409, "chat_already_bound")


def test_auditor_reads_and_changes_nothing(gateway: Gateway, services: FakeServices) -> None:
    services.answer("telegram", "list_bindings", {"items": [BINDING], "next_cursor": None})
    auditor = gateway.signed_in("dora")
    assert auditor.get(BINDINGS).get_json()["items"] == [BINDING]
    for response in (
        auditor.post(BINDINGS, json=NEW),
        auditor.patch(f"{BINDINGS}/tgb_1", json={}),
        auditor.delete(f"{BINDINGS}/tgb_1"),
        auditor.put(f"{BINDINGS}/tgb_1/rules", json={"large_change": {"enabled": False}}),
        auditor.post(f"{BINDINGS}/tgb_1/test"),
        auditor.post(f"{NOTIFICATIONS}/ntf_1/retry"),
    ):
        assert response.status_code == 403
        assert response.get_json(force=True)["missing"] == "telegram:operate"


def test_only_what_is_said_is_changed(gateway: Gateway, services: FakeServices) -> None:
    services.answer("telegram", "update_binding", BINDING)
    assert gateway.bob.patch(f"{BINDINGS}/tgb_1", json={"status": "disabled"}).status_code == 200
    [call] = services.calls_of("telegram", "update_binding")
    assert call.arguments == {"binding_id": "tgb_1", "changes": {"status": "disabled"}}
    assert gateway.bob.patch(f"{BINDINGS}/tgb_1", json={"chat_id": "-2"}).status_code == 422


def test_unbinding_answers_nothing(gateway: Gateway, services: FakeServices) -> None:
    services.answer("telegram", "delete_binding", None)
    response = gateway.bob.delete(f"{BINDINGS}/tgb_1")
    assert (response.status_code, response.data) == (204, b"")
    services.answer("telegram", "delete_binding", BindingNotFound())
    assert gateway.bob.delete(f"{BINDINGS}/tgb_1").status_code == 404


def test_rules_reach_the_service(gateway: Gateway, services: FakeServices) -> None:
    answer = {
        "large_change": {"enabled": True, "threshold": "1000.00"},
        "adjustment": {"enabled": True},
        "device": {"enabled": True},
    }
    services.answer("telegram", "change_rules", answer)
    response = gateway.bob.put(f"{BINDINGS}/tgb_1/rules", json=answer)
    assert (response.status_code, response.get_json()) == (200, answer)
    gateway.bob.put(f"{BINDINGS}/tgb_1/rules", json={"large_change": {"enabled": False}})
    calls = services.calls_of("telegram", "change_rules")
    assert calls[0].arguments == {"binding_id": "tgb_1", **answer}
    assert calls[1].arguments == {"binding_id": "tgb_1", "large_change": {"enabled": False, "threshold": None}}


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"large_change": {}},
        {"large_change": {"enabled": "yes"}},
        {"large_change": {"enabled": True, "threshold": 1000}},
        {"large_change": {"enabled": True, "threshold": "1e3"}},
        {"large_change": {"enabled": True, "colour": "red"}},
        {"large_change": {"enabled": True}, "earthquake": {"enabled": True}},
        {"large_change": {"enabled": True}, "device": {}},
        {"large_change": {"enabled": True}, "adjustment": {"enabled": True, "threshold": "1"}},
    ],
)
def test_rules_that_are_misshapen_are_refused(gateway: Gateway, rules: dict[str, Any]) -> None:
    assert gateway.bob.put(f"{BINDINGS}/tgb_1/rules", json=rules).status_code == 422


def test_filters_of_notifications_reach_the_service(gateway: Gateway, services: FakeServices) -> None:
    services.answer("telegram", "list_notifications", {"items": [], "next_cursor": None})
    assert gateway.bob.get(f"{NOTIFICATIONS}?status=dead&type=large_change&limit=5").status_code == 200
    [call] = services.calls_of("telegram", "list_notifications")
    assert {name: call.arguments[name] for name in ("status", "type", "limit")} == {
        "status": "dead",
        "type": "large_change",
        "limit": 5,
    }
    assert gateway.bob.get(f"{NOTIFICATIONS}?status=lost").status_code == 422
    assert gateway.bob.get(f"{NOTIFICATIONS}?chat=1").status_code == 422
