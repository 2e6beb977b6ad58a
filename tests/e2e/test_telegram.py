"""A balance change that is large reaches the merchant's group: HTTP, bus, databases, events, Bot API, audit."""

import secrets
from typing import Any

import pytest

from operations.processes import simulator_url
from simulators.telegram.server import ControlClient
from tests.e2e.conftest import Api, Platform, eventually


@pytest.fixture
def simulator(platform: Platform) -> ControlClient:
    return ControlClient(simulator_url(platform.system.home))


def new_chat_id() -> int:
    return -(10**12) - secrets.randbelow(10**9)


def bind(api: Api, merchant_id: str, chat_id: int) -> str:
    answer = api.post("/telegram/bindings", {"merchant_id": merchant_id, "chat_id": str(chat_id)})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def notifications(api: Api, binding_id: str) -> list[dict[str, Any]]:
    answer = api.get("/telegram/notifications", binding_id=binding_id)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def test_large_change_reaches_its_merchants_group_and_the_audit_log(
    platform: Platform, simulator: ControlClient
) -> None:
    merchant_id, chat_id = platform.merchant(), new_chat_id()
    operator = platform.person(roles=["operator"], merchants=[merchant_id])
    binding_id = bind(operator, merchant_id, chat_id)
    rules = {"large_change": {"enabled": True, "threshold": "500.00"}}
    set_rules = operator.put(f"/telegram/bindings/{binding_id}/rules", rules).json()
    assert set_rules == {**rules, "adjustment": {"enabled": False}, "device": {"enabled": False}}
    platform.recharge(merchant_id, "u1", "499.99")
    platform.recharge(merchant_id, "u1", "500.00")
    [message] = eventually(lambda: simulator.messages(chat_id))
    assert "+500.00 CNY" in message["text"]
    assert "999.99 CNY" in message["text"], "the balance after it"
    [sent] = eventually(lambda: [n for n in notifications(operator, binding_id) if n["status"] == "sent"])
    assert sent["message_id"] == message["message_id"]
    logged = eventually(lambda: platform.admin.get("/logs", resource_id=sent["id"], type="operation").json()["items"])
    assert [row["action"] for row in logged] == ["telegram.send_notification"]
    acts = platform.admin.get("/logs", resource_id=binding_id).json()["items"]
    assert {"telegram.create_binding", "telegram.change_rules"} <= {row["action"] for row in acts}


def test_adjustment_is_told_to_the_group_that_wants_to_know(platform: Platform, simulator: ControlClient) -> None:
    merchant_id, chat_id = platform.merchant(), new_chat_id()
    binding_id = bind(platform.admin, merchant_id, chat_id)
    rules = {"large_change": {"enabled": False}, "adjustment": {"enabled": True}}
    assert platform.admin.put(f"/telegram/bindings/{binding_id}/rules", rules).status_code == 200
    platform.recharge(merchant_id, "u1", "500.00")
    adjusted = {"merchant_id": merchant_id, "user_id": "u1", "type": 326, "amount": "-0.50", "currency": "CNY"}
    assert platform.admin.post("/balance-changes", adjusted).json()["code"] == "reason_required"
    made = platform.admin.post("/balance-changes", adjusted | {"reason": "Charged twice."})
    assert (made.status_code, made.json()["reason"]) == (201, "Charged twice.")
    [message] = eventually(lambda: simulator.messages(chat_id))
    assert "-0.50 CNY" in message["text"]
    assert message["text"].endswith("Reason: Charged twice.")
    [entry] = platform.admin.get("/balance-logs", merchant_id=merchant_id, type="Admin Adjust").json()["items"]
    assert (entry["entry_id"], entry["operator"]) == (made.json()["entry_id"], made.json()["operator"])
    assert entry["operator"]


def test_another_merchants_operator_sees_nothing_of_it(platform: Platform, simulator: ControlClient) -> None:
    merchant_id, chat_id = platform.merchant(), new_chat_id()
    binding_id = bind(platform.admin, merchant_id, chat_id)
    test = platform.admin.post(f"/telegram/bindings/{binding_id}/test")
    assert test.status_code == 202, test.text
    eventually(lambda: simulator.messages(chat_id))
    stranger = platform.person(roles=["operator"], merchants=[platform.merchant()])
    for answer in (
        stranger.get(f"/telegram/bindings/{binding_id}/rules"),
        stranger.post(f"/telegram/bindings/{binding_id}/test"),
        stranger.get(f"/telegram/notifications/{test.json()['id']}"),
        stranger.post(f"/telegram/notifications/{test.json()['id']}/retry"),
        stranger.post("/telegram/bindings", {"merchant_id": merchant_id, "chat_id": str(new_chat_id())}),
    ):
        assert answer.status_code == 404, answer.text
    assert stranger.get("/telegram/bindings").json()["items"] == []
    assert notifications(stranger, binding_id) == []


def test_message_survives_the_death_of_the_service(platform: Platform, simulator: ControlClient) -> None:
    merchant_id, chat_id = platform.merchant(), new_chat_id()
    binding_id = bind(platform.admin, merchant_id, chat_id)
    platform.admin.put(f"/telegram/bindings/{binding_id}/rules", {"large_change": {"enabled": True, "threshold": "1"}})
    simulator.order_fault("server_error", chat_id=chat_id)
    platform.recharge(merchant_id, "u1", "20.00")
    platform.system.kill("telegram-1")
    platform.recharge(merchant_id, "u1", "30.00")
    eventually(lambda: len(simulator.messages(chat_id)) >= 2, within_seconds=90)
    texts = [message["text"] for message in simulator.messages(chat_id)]
    assert any("+20.00 CNY" in text for text in texts)
    assert any("+30.00 CNY" in text for text in texts)
