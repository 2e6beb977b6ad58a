"""The routes of channels: their shapes, their permissions, and what of a request reaches the service."""

from typing import Any

import pytest

from shared.contracts.channels import ChannelCodeTaken, ChannelNotFound, InvalidChannelConfig

CHANNEL = {
    "code": "alipay",
    "name": "Alipay",
    "kind": "http",
    "config": {"base_url": "https://pay.example.com", "columns": {"amount": "Amount"}},
    "credentials": ["query_secret"],
    "status": "active",
    "version": 1,
    "created_at": "2026-11-24T08:00:00.000000Z",
    "updated_at": "2026-11-24T08:00:00.000000Z",
}
NEW = {"code": "alipay", "name": "Alipay", "kind": "http", "config": {"base_url": "https://pay.example.com"}}


def test_channel_is_registered_as_the_body_says(gateway: Any, services: Any) -> None:
    services.answer("ledger", "create_channel", CHANNEL | {"secrets": "sealed"})
    secret = "whsec_" + "QUFB" * 8
    body = NEW | {"config": NEW["config"] | {"query_secret": secret, "callback_secrets": [secret]}}
    answer = gateway.alice.post("/api/v1/channels", json=body)
    assert (answer.status_code, answer.json) == (201, CHANNEL)
    [call] = services.calls_of("ledger", "create_channel")
    assert call.arguments == body


def test_secret_never_comes_out_even_if_the_service_let_it(gateway: Any, services: Any) -> None:
    leaky = CHANNEL | {"config": CHANNEL["config"] | {"query_secret": "whsec_leak"}}
    services.answer("ledger", "list_channels", {"items": [leaky], "next_cursor": None})
    answer = gateway.alice.get("/api/v1/channels")
    assert answer.json["items"] == [CHANNEL]
    assert "whsec_leak" not in answer.text


def test_change_names_only_what_changes(gateway: Any, services: Any) -> None:
    services.answer("ledger", "update_channel", CHANNEL)
    body = {"config": {"fee_percent": None}, "status": "disabled", "reason": "It is closed."}
    assert gateway.alice.patch("/api/v1/channels/alipay", json=body).status_code == 200
    [call] = services.calls_of("ledger", "update_channel")
    assert call.arguments == body | {"code": "alipay"}


@pytest.mark.parametrize(
    "body",
    [
        {"status": "disabled"},
        {"reason": "x", "kind": "stripe"},
        {"reason": "x", "config": {"unknown": 1}},
        {"reason": "x", "config": {"columns": {"price": "Amount"}}},
        {"reason": "x", "config": {"statuses": {"OK": "paid"}}},
    ],
)
def test_malformed_change_reaches_nobody(gateway: Any, services: Any, body: dict[str, Any]) -> None:
    assert gateway.alice.patch("/api/v1/channels/alipay", json=body).status_code == 422
    assert services.calls_of("ledger", "update_channel") == []


@pytest.mark.parametrize(
    ("error", "status"), [(ChannelCodeTaken(), 409), (InvalidChannelConfig("config.base_url: no."), 422)]
)
def test_refusals_keep_their_code(gateway: Any, services: Any, error: Exception, status: int) -> None:
    services.answer("ledger", "create_channel", error)
    answer = gateway.alice.post("/api/v1/channels", json=NEW)
    assert (answer.status_code, answer.json["code"]) == (status, error.code)  # type: ignore[attr-defined]


def test_unknown_channel_is_not_found(gateway: Any, services: Any) -> None:
    services.answer("ledger", "get_channel", ChannelNotFound())
    assert gateway.dora.get("/api/v1/channels/x").status_code == 404


def test_operators_read_channels_and_do_not_change_them(gateway: Any, services: Any) -> None:
    services.answer("ledger", "list_channels", {"items": [], "next_cursor": None})
    assert gateway.bob.get("/api/v1/channels").status_code == 200
    assert gateway.bob.post("/api/v1/channels", json=NEW).json["missing"] == "settings:admin"
    assert gateway.bob.patch("/api/v1/channels/x", json={"reason": "x"}).status_code == 403
