"""A device's life: bound by an operator, its program heard by API key, missed, told to the group, logged, blocked."""

import csv
import io
import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from operations.processes import simulator_url
from shared.times import rfc3339, utc_now
from simulators.telegram.server import ControlClient
from tests.e2e.conftest import Api, Platform, eventually
from tests.e2e.test_cards import files_with, make_card, new_number

PARAMETERS = "/settings/parameters"


@pytest.fixture
def impatience(platform: Platform) -> Iterator[None]:
    """Let devices be missed after two seconds for as long as the test."""

    def set_all(values: dict[str, int]) -> None:
        for key, value in values.items():
            version = platform.admin.get(f"{PARAMETERS}/{key}").json()["version"]
            change = {"value": value, "reason": "For a test.", "expected_version": version}
            answer = platform.admin.put(f"{PARAMETERS}/{key}", change)
            assert answer.status_code == 200, answer.text

    set_all({"cards.device_heartbeat_seconds": 1, "cards.device_grace_seconds": 1})
    yield
    set_all({"cards.device_heartbeat_seconds": 60, "cards.device_grace_seconds": 120})


def program(platform: Platform, merchant_id: str) -> Api:
    """Return the way in of a program with an API key for one merchant."""
    body = {"name": f"devices {secrets.token_hex(4)}", "roles": ["operator"], "merchants": [merchant_id]}
    answer = platform.admin.post("/api-keys", body)
    assert answer.status_code == 201, answer.text
    return Api(platform.system.url, answer.json()["secret"])


def bind_new(api: Api, card_id: str, **changes: Any) -> dict[str, Any]:
    device = {"fingerprint": secrets.token_hex(8), "name": "Till 1", "platform": "android"}
    answer = api.post(f"/cards/{card_id}/devices", device | changes)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def event(number: int, **fields: Any) -> dict[str, Any]:
    time = rfc3339(utc_now() - timedelta(minutes=number))
    return {"event_id": f"evt-{number}", "time": time, "action": "payment", **fields}


def test_a_program_sends_rows_in_any_order_and_again_and_each_is_there_once(platform: Platform) -> None:
    merchant_id = platform.merchant()
    operator = platform.person(roles=["operator"], merchants=[merchant_id])
    card_id = make_card(operator, merchant_id=merchant_id)["id"]
    device_id = bind_new(operator, card_id)["device_id"]
    device, path = program(platform, merchant_id), f"/devices/{device_id}/logs"
    number = new_number()
    batch = [event(3), event(1, detail=f"paid with {number}", card_id=card_id), event(2, result="failure")]
    first = device.post(path, {"rows": batch})
    assert (first.status_code, first.json()["stored"]) == (200, 3), first.text
    again = device.post(
        path, {"rows": [*reversed(batch), event(4), event(5, action="No word"), event(6, card_id="car_x")]}
    )
    assert [item["outcome"] for item in again.json()["items"]] == ["duplicate"] * 3 + ["stored"] + ["refused"] * 2
    # A month that nobody has written into yet: the service's own role may not make its partition, and has it made.
    old = event(8) | {"time": rfc3339(utc_now() - timedelta(days=200))}
    assert device.post(path, {"rows": [old]}).json()["stored"] == 1
    key, seventh = secrets.token_hex(8), {"rows": [event(7)]}
    answers = [device.post(path, seventh, key=key) for _ in range(2)]
    assert answers[0].content == answers[1].content
    assert answers[1].headers["Idempotent-Replayed"] == "true"

    def listed(**filters: Any) -> list[str]:
        rows = operator.get("/device-logs", **{"device_id": device_id, "source": "device", **filters}).json()["items"]
        return [row["event_id"] for row in rows]

    assert listed() == ["evt-1", "evt-2", "evt-3", "evt-4", "evt-7", "evt-8"]
    assert listed(result="failure") == ["evt-2"]
    assert listed(card_id=card_id) == ["evt-1"]
    assert listed(q="paid") == ["evt-1"]
    operator.http.headers["Accept"] = "text/csv"
    text = operator.get("/device-logs", device_id=device_id).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["action"] for row in rows] == ["bind", *["payment"] * 6]
    assert number not in text
    assert files_with(number, platform.system.home.path) == []


@pytest.mark.usefixtures("impatience")
def test_a_device_that_falls_silent_and_comes_back_is_told_once_each(platform: Platform) -> None:
    simulator = ControlClient(simulator_url(platform.system.home))
    merchant_id, chat_id = platform.merchant(), -(10**12) - secrets.randbelow(10**9)
    operator = platform.person(roles=["operator"], merchants=[merchant_id])
    bound = operator.post("/telegram/bindings", {"merchant_id": merchant_id, "chat_id": str(chat_id)})
    rules = {"large_change": {"enabled": False}, "device": {"enabled": True}}
    assert operator.put(f"/telegram/bindings/{bound.json()['id']}/rules", rules).json()["device"] == {"enabled": True}
    device_id = bind_new(operator, make_card(operator, merchant_id=merchant_id)["id"])["device_id"]
    device = program(platform, merchant_id)

    def beat() -> dict[str, Any]:
        answer = device.post(f"/devices/{device_id}/heartbeat", key="")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    eventually(lambda: beat()["next_within_seconds"] == 1)
    eventually(lambda: beat() and operator.get(f"/devices/{device_id}").json()["connection"] in ("online", "late"))
    gone, *_ = eventually(lambda: simulator.messages(chat_id))
    assert gone["text"].startswith("Device offline\nDevice: Till 1")
    assert operator.get(f"/devices/{device_id}").json()["connection"] == "offline"
    beat()
    fleet = device.post("/devices/heartbeats", {"device_ids": [device_id, "dev_unknown"]}).json()
    assert [item["outcome"] for item in fleet["items"]] == ["seen", "not_found"]
    eventually(lambda: len(simulator.messages(chat_id)) >= 2)
    assert simulator.messages(chat_id)[1]["text"].startswith("Device back online")
    told = operator.get("/device-logs", device_id=device_id, source="system").json()["items"]
    assert [row["action"] for row in reversed(told)][:3] == ["bind", "offline", "online"]

    def audited() -> set[str]:
        rows = operator.get("/logs", resource_id=device_id, limit=100).json()["items"]
        return {row["event"] for row in rows if row["log_type"] == "operation"}

    eventually(lambda: {"DeviceBound", "DeviceWentOffline", "DeviceCameOnline"} <= audited())
    blocked = operator.patch(f"/devices/{device_id}", {"status": "blocked", "reason": "Till stolen."})
    assert (blocked.status_code, blocked.json()["status"]) == (200, "blocked"), blocked.text
    assert beat()["status"] == "blocked"


def test_limits_hold_and_another_merchants_devices_do_not_exist(platform: Platform) -> None:
    ours, theirs = platform.merchant(), platform.merchant()
    operator = platform.person(roles=["operator"], merchants=[ours])
    stranger = platform.person(roles=["operator"], merchants=[theirs])
    card_id = make_card(operator, merchant_id=ours)["id"]
    devices = [bind_new(operator, card_id)["device_id"] for _ in range(5)]
    sixth = operator.post(f"/cards/{card_id}/devices", {"fingerprint": "six", "name": "Till 6", "platform": "android"})
    assert (sixth.status_code, sixth.json()["code"], sixth.json()["limit"]) == (409, "card_device_limit_reached", 5)
    device_id, foreign_card = devices[0], make_card(stranger, merchant_id=theirs)["id"]
    moved = platform.admin.post(f"/cards/{foreign_card}/devices", {"device_id": device_id})
    assert (moved.status_code, moved.json()["code"]) == (409, "device_of_other_merchant")
    for hidden in (device_id, "dev_unknown"):
        answers = [
            stranger.get(f"/devices/{hidden}"),
            stranger.get(f"/devices/{hidden}/cards"),
            stranger.patch(f"/devices/{hidden}", {"name": "x"}),
            stranger.post(f"/devices/{hidden}/heartbeat"),
            stranger.post(f"/devices/{hidden}/logs", {"rows": [event(1)]}),
            stranger.post(f"/cards/{foreign_card}/devices", {"device_id": hidden}),
            stranger.http.delete(f"{stranger.url}/api/v1/devices/{hidden}", timeout=30),
        ]
        assert {(a.status_code, a.json()["code"]) for a in answers} == {(404, "device_not_found")}
    assert stranger.get("/devices").json()["items"] == stranger.get("/device-logs").json()["items"] == []
    assert stranger.get(f"/cards/{card_id}/devices").status_code == 404
    one = operator.http.delete(f"{operator.url}/api/v1/devices/{device_id}", params={"card_id": card_id}, timeout=30)
    assert (one.status_code, one.json()["status"]) == (200, "unbound"), one.text
    assert len(operator.get(f"/cards/{card_id}/devices").json()["items"]) == 4
    assert len(operator.get(f"/cards/{card_id}/devices", history="true").json()["items"]) == 5
    assert operator.post(f"/cards/{card_id}/close", {"reason": "Done."}).status_code == 200
    assert operator.get(f"/cards/{card_id}/devices").json()["items"] == []
    assert {d["status"] for d in operator.get("/devices").json()["items"]} == {"unbound"}
