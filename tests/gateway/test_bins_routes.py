"""The routes of BIN ranges: what they pass on, and what they refuse themselves."""

import pytest

from tests.gateway.conftest import Gateway
from tests.gateway.people import FakeServices

BIN = {"bin": "622848", "brand": "unionpay", "length": 16, "status": "active", "merchant_id": None}
BIN |= {"created_at": "2026-11-24T09:00:00Z", "updated_at": "2026-11-24T09:00:00Z"}


def test_bin_is_registered_changed_and_listed(gateway: Gateway, services: FakeServices) -> None:
    services.answer("cards", "create_bin", BIN)
    services.answer("cards", "update_bin", BIN | {"status": "disabled"})
    services.answer("cards", "list_bins", {"items": [BIN], "next_cursor": None})

    created = gateway.alice.post("/api/v1/cards/bins", json={"bin": "622848", "merchant_id": "mer_1"})
    changed = gateway.alice.patch("/api/v1/cards/bins/622848", json={"status": "disabled"})
    listed = gateway.alice.get("/api/v1/cards/bins?status=active")

    assert (created.status_code, created.get_json()) == (201, BIN)
    assert changed.get_json()["status"] == "disabled"
    assert listed.get_json()["items"] == [BIN]
    sent = [call.arguments for call in services.calls if call.service == "cards"]
    assert sent[0] == {"bin": "622848", "status": "active", "merchant_id": "mer_1"}
    assert sent[1] == {"bin": "622848", "status": "disabled"}
    assert sent[2]["status"] == "active"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"bin": "41111"},
        {"bin": "0411111"},
        {"bin": 411111},
        {"bin": "411111", "length": 12},
        {"bin": "411111", "x": 1},
    ],
)
def test_bad_range_is_refused_at_the_edge(gateway: Gateway, services: FakeServices, body: object) -> None:
    assert gateway.alice.post("/api/v1/cards/bins", json=body).status_code == 422
    assert not [call for call in services.calls if call.service == "cards"]
