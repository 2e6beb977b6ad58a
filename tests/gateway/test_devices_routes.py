"""The routes of devices: their shapes, what reaches the service, what is refused before it."""

from typing import Any

import pytest

from shared.contracts.devices import CardDeviceLimitReached, DeviceIsBlocked, DeviceNotFound
from tests.gateway.conftest import Gateway
from tests.gateway.people import AURORA, FakeServices

BOUND = {
    "device_id": "dev_1",
    "card_id": "car_1",
    "name": "Till 1",
    "platform": "android",
    "fingerprint": "fp-1",
    "status": "bound",
    "connection": None,
    "bound_at": "2026-11-24T08:00:00Z",
    "unbound_at": None,
    "unbound_because": None,
    "last_seen_at": None,
}
DEVICE = {
    "device_id": "dev_1",
    "merchant_id": AURORA,
    "name": "Till 1",
    "platform": "android",
    "fingerprint": "fp-1",
    "status": "bound",
    "status_reason": None,
    "connection": "online",
    "card_ids": ["car_1"],
    "bound_at": "2026-11-24T08:00:00Z",
    "last_seen_at": "2026-11-24T08:00:00Z",
    "created_at": "2026-11-24T08:00:00Z",
    "updated_at": "2026-11-24T08:00:00Z",
}
LOG = {
    "device_id": "dev_1",
    "event_id": "e1",
    "merchant_id": AURORA,
    "card_id": None,
    "source": "device",
    "action": "payment",
    "result": "success",
    "ip": None,
    "detail": "=cmd|' /C calc'!A0",
    "actor_name": "program",
    "time": "2026-11-24T08:00:00Z",
    "received_at": "2026-11-24T08:00:00Z",
}
NUMBER = "4111111111111111"
NEW = {"fingerprint": "fp-1", "name": "Till 1", "platform": "android"}


def page(*items: Any) -> dict[str, Any]:
    return {"items": list(items), "next_cursor": None}


@pytest.mark.parametrize("body", [NEW, {"device_id": "dev_1"}])
def test_a_device_is_bound_with_what_the_body_says(gateway: Gateway, services: FakeServices, body: Any) -> None:
    services.answer("cards", "bind_device", BOUND)
    answer = gateway.bob.post("/api/v1/cards/car_1/devices", json=body)
    assert (answer.status_code, answer.json) == (201, BOUND)
    [call] = services.calls_of("cards", "bind_device")
    assert call.arguments == {"card_id": "car_1", **body}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"fingerprint": ""}, "fingerprint"),
        ({"fingerprint": "x" * 129}, "fingerprint"),
        ({"name": 5}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": f"of {NUMBER}"}, "name"),
        ({"platform": None}, "platform"),
        ({"status": "bound"}, "status"),
    ],
)
def test_a_wrong_device_is_refused(gateway: Gateway, services: FakeServices, change: Any, field: str) -> None:
    answer = gateway.bob.post("/api/v1/cards/car_1/devices", json=NEW | change)
    assert answer.status_code == 422
    assert field in answer.get_json(force=True)["errors"]
    assert NUMBER not in answer.text
    assert services.calls_of("cards", "bind_device") == []


def test_a_limit_is_a_conflict_that_says_the_limit(gateway: Gateway, services: FakeServices) -> None:
    services.answer("cards", "bind_device", CardDeviceLimitReached(limit=3))
    problem = gateway.bob.post("/api/v1/cards/car_1/devices", json=NEW)
    assert problem.status_code == 409
    body = problem.get_json(force=True)
    assert (body["code"], body["limit"]) == ("card_device_limit_reached", 3)


def test_devices_are_listed_with_each_filter(gateway: Gateway, services: FakeServices) -> None:
    services.answer("cards", "list_devices", page(DEVICE))
    filters = {
        "q": "till",
        "status": "bound",
        "connection": "late",
        "merchant_id": AURORA,
        "card_id": "car_1",
        "platform": "ios",
    }
    assert gateway.dora.get("/api/v1/devices", query_string=filters).json == page(DEVICE)
    [call] = services.calls_of("cards", "list_devices")
    connected = filters.pop("connection")
    assert call.arguments == {**filters, "connected": connected, "limit": 50, "cursor": None}
    assert gateway.dora.get("/api/v1/devices?status=lost").status_code == 422
    assert gateway.dora.get("/api/v1/devices?colour=red").status_code == 422


@pytest.mark.parametrize(
    ("path", "method", "item"),
    [
        ("/api/v1/cards/car_1/devices", "list_card_devices", BOUND),
        (
            "/api/v1/devices/dev_1/cards",
            "list_device_cards",
            {
                "card_id": "car_1",
                "device_id": "dev_1",
                "number_masked": "411111******1111",
                "bound_at": "2026-11-24T08:00:00Z",
                "unbound_at": None,
                "unbound_because": None,
            },
        ),
    ],
)
def test_bindings_are_present_ones_or_all(
    gateway: Gateway, services: FakeServices, path: str, method: str, item: Any
) -> None:
    services.answer("cards", method, page(item))
    assert gateway.dora.get(path).json == page(item)
    assert gateway.dora.get(f"{path}?history=true").status_code == 200
    assert gateway.dora.get(f"{path}?history=perhaps").status_code == 422
    assert [call.arguments["history"] for call in services.calls_of("cards", method)] == [False, True]


def test_a_device_is_shown_changed_blocked_and_unbound(gateway: Gateway, services: FakeServices) -> None:
    for method in ("get_device", "update_device", "unbind_device"):
        services.answer("cards", method, DEVICE)
    assert gateway.dora.get("/api/v1/devices/dev_1").json == DEVICE
    path = "/api/v1/devices/dev_1"
    for body in ({"name": "Till 2"}, {"status": "blocked", "reason": "Stolen."}, {"status": "bound"}):
        assert gateway.bob.patch(path, json=body).status_code == 200
    for body in ({"status": "unbound"}, {"status": "blocked", "reason": " "}, {"fingerprint": "other"}):
        assert gateway.bob.patch(path, json=body).status_code == 422
    assert [call.arguments for call in services.calls_of("cards", "update_device")] == [
        {"device_id": "dev_1", "name": "Till 2"},
        {"device_id": "dev_1", "status": "blocked", "reason": "Stolen."},
        {"device_id": "dev_1", "status": "bound"},
    ]
    assert gateway.bob.delete(path).json == DEVICE
    assert gateway.bob.delete(f"{path}?card_id=car_1").json == DEVICE
    assert [call.arguments for call in services.calls_of("cards", "unbind_device")] == [
        {"device_id": "dev_1"},
        {"device_id": "dev_1", "card_id": "car_1"},
    ]


def test_refusals_of_the_service_pass_through(gateway: Gateway, services: FakeServices) -> None:
    services.answer("cards", "update_device", DeviceNotFound())
    services.answer("cards", "bind_device", DeviceIsBlocked())
    unknown = gateway.bob.patch("/api/v1/devices/dev_2", json={"name": "x"})
    assert (unknown.status_code, unknown.get_json(force=True)["code"]) == (404, "device_not_found")
    blocked = gateway.bob.post("/api/v1/cards/car_1/devices", json={"device_id": "dev_1"})
    assert (blocked.status_code, blocked.get_json(force=True)["code"]) == (409, "device_blocked")


def test_heartbeats_reach_the_service(gateway: Gateway, services: FakeServices) -> None:
    beat = {
        "device_id": "dev_1",
        "status": "bound",
        "last_seen_at": "2026-11-24T08:00:00Z",
        "next_within_seconds": 60,
    }
    services.answer("cards", "hear_device", beat)
    assert gateway.bob.post("/api/v1/devices/dev_1/heartbeat").json == beat
    assert gateway.bob.post("/api/v1/devices/dev_1/heartbeat", json={}).json == beat
    fleet = {
        "items": [{"device_id": "dev_1", "outcome": "seen", "status": "bound", "last_seen_at": "2026-11-24T08:00:00Z"}],
        "seen": 1,
        "not_found": 0,
        "next_within_seconds": 60,
    }
    services.answer("cards", "hear_devices", fleet)
    assert gateway.bob.post("/api/v1/devices/heartbeats", json={"device_ids": ["dev_1"]}).json == fleet
    for device_ids in ([], ["d"] * 1001, "dev_1", [1]):
        answer = gateway.bob.post("/api/v1/devices/heartbeats", json={"device_ids": device_ids})
        assert answer.status_code == 422
    assert len(services.calls_of("cards", "hear_devices")) == 1


def test_rows_reach_the_service_as_they_were_sent_so_that_one_refuses_no_other(
    gateway: Gateway, services: FakeServices
) -> None:
    results = {
        "items": [
            {"event_id": "e1", "outcome": "stored"},
            {"event_id": None, "outcome": "refused", "errors": {"_schema": ["A row is an object."]}},
        ],
        "stored": 1,
        "duplicates": 0,
        "refused": 1,
    }
    services.answer("cards", "store_device_logs", results)
    rows = [{"event_id": "e1", "detail": f"paid with {NUMBER}", "unknown": 1}, "nonsense"]
    answer = gateway.bob.post("/api/v1/devices/dev_1/logs", json={"rows": rows})
    assert (answer.status_code, answer.json) == (200, results)
    [call] = services.calls_of("cards", "store_device_logs")
    assert call.arguments == {"device_id": "dev_1", "rows": rows}
    for wrong in ([], [{}] * 1001, "rows", None, {"0": {}}):
        answer = gateway.bob.post("/api/v1/devices/dev_1/logs", json={"rows": wrong})
        assert answer.status_code == 422
        assert "rows" in answer.get_json(force=True)["errors"]
    assert len(services.calls_of("cards", "store_device_logs")) == 1
    full = {"rows": [{"event_id": f"e{n}", "detail": "\u8eab" * 500} for n in range(1000)]}
    assert gateway.bob.post("/api/v1/devices/dev_1/logs", json=full).status_code == 200


def test_the_log_is_searched_by_each_filter_and_leaves_as_csv(gateway: Gateway, services: FakeServices) -> None:
    services.answer("cards", "list_device_logs", page(LOG))
    filters = {
        "device_id": "dev_1",
        "card_id": "car_1",
        "merchant_id": AURORA,
        "action": "payment",
        "result": "success",
        "source": "device",
        "q": "calc",
    }
    times = {"from": "2026-11-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"}
    assert gateway.dora.get("/api/v1/device-logs", query_string=filters | times).json == page(LOG)
    [call] = services.calls_of("cards", "list_device_logs")
    renamed = {"from_time": times["from"], "to_time": times["to"]}
    assert call.arguments == {**filters, **renamed, "limit": 50, "cursor": None}
    csv = gateway.dora.get("/api/v1/device-logs", headers={"Accept": "text/csv"})
    assert csv.mimetype == "text/csv"
    header, line = csv.text.splitlines()
    assert header.split(",")[:2] == ["device_id", "event_id"]
    assert ",'=cmd" in line


def test_reading_is_not_enough_to_change(gateway: Gateway, services: FakeServices) -> None:
    for method, path, body in [
        ("POST", "/cards/car_1/devices", NEW),
        ("PATCH", "/devices/dev_1", {"name": "x"}),
        ("DELETE", "/devices/dev_1", None),
        ("POST", "/devices/dev_1/heartbeat", None),
        ("POST", "/devices/heartbeats", {"device_ids": ["dev_1"]}),
        ("POST", "/devices/dev_1/logs", {"rows": [{}]}),
    ]:
        answer = gateway.dora.open(f"/api/v1{path}", method=method, json=body)
        assert answer.status_code == 403, path
    assert [call for call in services.calls if call.service == "cards"] == []
