"""Heartbeats on a real database: who is online, late, offline, and what is told of it, once."""

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from services.cards.devices import heartbeats, log_queries, queries, usecases
from services.cards.devices.domain import BindingLimits, HeartbeatRule
from services.cards.devices.models import Presence
from shared.contracts.devices import DeviceNotFound
from shared.errors import InvalidRequest
from shared.times import parse_rfc3339
from tests.conftest import AURORA, BOREALIS

LIMITS = BindingLimits(devices_per_card=50, cards_per_device=5)
RULE = HeartbeatRule(interval_seconds=60, grace_seconds=120)


@pytest.fixture
def card(make_card) -> str:
    return make_card(merchant_id=AURORA)["id"]


@pytest.fixture
def make_device(session, alice, cipher, card) -> Callable[..., str]:
    numbers = itertools.count(1)

    def make(card_id: str = card) -> str:
        described = {"fingerprint": f"fp-{next(numbers)}", "name": "Till", "platform": "android"}
        return usecases.bind_device(session, alice, cipher, LIMITS, RULE, card_id=card_id, **described)["device_id"]

    return make


@pytest.fixture
def hear(session, bob) -> Callable[..., Any]:
    return lambda device_id, passport=bob: heartbeats.hear_device(session, passport, RULE, device_id=device_id)


@pytest.fixture
def pass_time(session) -> Callable[..., None]:
    """Make everything that has happened so many seconds older, for one device or for all."""

    def run(seconds: float, device_id: str | None = None) -> None:
        ago = timedelta(seconds=seconds)
        older = {
            "last_seen_at": Presence.last_seen_at - ago,
            "watched_since": Presence.watched_since - ago,
            "offline_at": Presence.offline_at - ago,
        }
        statement = sa.update(Presence).values(older)
        session.execute(statement if device_id is None else statement.where(Presence.device_id == device_id))

    return run


@pytest.fixture
def miss(session) -> Callable[..., int]:
    """Look for silent devices, as if somebody had been looking all the time."""

    def run(resumed_seconds_ago: float = 10_000) -> int:
        now = session.scalar(sa.select(sa.func.clock_timestamp()))
        resumed_at = now - timedelta(seconds=resumed_seconds_ago)
        return heartbeats.miss_devices(session, RULE, resumed_at=resumed_at, actor_name="cards")

    return run


@pytest.fixture
def edges(told) -> Callable[[], list[tuple[str, str]]]:
    """Return the edges that were told, as (which, device)."""
    names = {"DeviceWentOffline": "offline", "DeviceCameOnline": "online"}
    return lambda: [(names[n], e["resource_id"]) for n, e in told() if n in names]


def test_a_heartbeat_is_noted_by_our_clock_and_says_when_the_next_is_due(session, make_device, hear, bob):
    device_id = make_device()
    before = session.scalar(sa.select(sa.func.clock_timestamp()))
    heard = hear(device_id)
    assert before <= parse_rfc3339(heard["last_seen_at"])
    assert (heard["status"], heard["next_within_seconds"]) == ("bound", 60)
    device = queries.get_device(session, bob, RULE, device_id=device_id)
    assert (device["connection"], device["last_seen_at"]) == ("online", heard["last_seen_at"])


def test_another_merchants_device_is_not_heard(make_device, hear, charlie):
    device_id = make_device()
    with pytest.raises(DeviceNotFound):
        hear(device_id, charlie)
    with pytest.raises(DeviceNotFound):
        hear("dev_unknown")


def test_going_offline_and_coming_back_are_each_told_once(
    session, make_device, hear, pass_time, miss, edges, told, bob
):
    device_id = make_device()
    hear(device_id)
    assert miss() == 0
    pass_time(179)
    assert miss() == 0
    pass_time(2)
    assert [miss(), miss(), miss()] == [1, 0, 0]
    pass_time(5000)
    assert miss() == 0
    hear(device_id)
    hear(device_id)
    assert edges() == [("offline", device_id), ("online", device_id)]
    pass_time(181)
    assert miss() == 1
    assert edges() == [("offline", device_id), ("online", device_id), ("offline", device_id)]
    offline = next(e for n, e in told() if n == "DeviceWentOffline")
    online = next(e for n, e in told() if n == "DeviceCameOnline")
    assert offline["merchant_id"] == online["merchant_id"] == AURORA
    assert 181 <= offline["payload"]["silent_seconds"] < 190
    assert 5181 <= online["payload"]["silent_seconds"] < 5190
    said = [r["action"] for r in log_queries.list_logs(session, bob, device_id=device_id)["items"]]
    assert said == ["offline", "online", "offline", "bind"]


def test_a_device_that_was_never_heard_of_is_not_missed(make_device, pass_time, miss):
    make_device()
    pass_time(5000)
    assert miss() == 0


def test_nobodys_concern_is_the_silence_of_a_blocked_or_unbound_device(
    session, alice, make_device, card, hear, pass_time, miss, edges
):
    blocked, unbound = make_device(), make_device()
    hear(blocked), hear(unbound)
    usecases.update_device(session, alice, RULE, device_id=blocked, status="blocked", reason="x")
    usecases.unbind_device(session, alice, RULE, device_id=unbound)
    pass_time(5000)
    assert miss() == 0
    # It is heard still, and told what it is.
    assert hear(blocked)["status"] == "blocked"
    assert hear(unbound)["status"] == "unbound"
    assert edges() == []


def test_a_device_that_is_watched_again_gets_its_time_to_speak(
    session, alice, make_device, hear, pass_time, miss, edges
):
    device_id = make_device()
    hear(device_id)
    pass_time(181)
    assert miss() == 1
    usecases.update_device(session, alice, RULE, device_id=device_id, status="blocked", reason="x")
    pass_time(5000)
    usecases.update_device(session, alice, RULE, device_id=device_id, status="bound")
    assert miss() == 0
    pass_time(181)
    assert miss() == 1
    assert edges() == [("offline", device_id), ("offline", device_id)]


def test_silence_counts_from_when_somebody_listened_again(make_device, hear, pass_time, miss):
    device_id = make_device()
    hear(device_id)
    pass_time(5000)
    assert miss(resumed_seconds_ago=170) == 0
    assert miss(resumed_seconds_ago=190) == 1


def test_a_look_after_a_gap_begins_anew_and_one_without_goes_on(session):
    now = session.scalar(sa.select(sa.func.clock_timestamp()))
    first = heartbeats.look(session)
    assert first >= now  # nobody had looked since the epoch
    assert heartbeats.look(session) == first
    session.execute(sa.text("update device_watch set looked_at = looked_at - interval '29 s'"))
    assert heartbeats.look(session) == first
    session.execute(sa.text("update device_watch set looked_at = looked_at - interval '31 s'"))
    assert heartbeats.look(session) > first


def test_many_silent_devices_are_missed_in_portions(session, make_device, hear, pass_time, edges):
    devices = {make_device() for _ in range(7)}
    for device_id in devices:
        hear(device_id)
    pass_time(500)
    now = session.scalar(sa.select(sa.func.clock_timestamp()))
    counts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heartbeats, "DEVICES_PER_LOOK", 3)
        for _ in range(4):
            counts.append(
                heartbeats.miss_devices(session, RULE, resumed_at=now - timedelta(hours=1), actor_name="cards")
            )
    assert counts == [3, 3, 1, 0]
    assert sorted(edges()) == sorted(("offline", device_id) for device_id in devices)


def test_a_fleet_is_heard_at_once_with_a_result_for_each(session, bob, make_device, make_card, pass_time, miss, edges):
    first, second = make_device(), make_device()
    theirs = make_device(make_card(merchant_id=BOREALIS)["id"])
    heartbeats.hear_devices(session, bob, RULE, device_ids=[second])
    pass_time(500)
    assert miss() == 1
    wanted = [second, "dev_unknown", first, second, theirs]
    view = heartbeats.hear_devices(session, bob, RULE, device_ids=wanted)
    assert [(i["device_id"], i["outcome"], i["status"]) for i in view["items"]] == [
        (second, "seen", "bound"),
        ("dev_unknown", "not_found", None),
        (first, "seen", "bound"),
        (theirs, "not_found", None),
    ]
    assert (view["seen"], view["not_found"], view["next_within_seconds"]) == (2, 2, 60)
    assert edges() == [("offline", second), ("online", second)]
    seen = queries.list_devices(session, bob, RULE, connected="online")["items"]
    assert {d["device_id"] for d in seen} == {first, second}
    with pytest.raises(InvalidRequest):
        heartbeats.hear_devices(session, bob, RULE, device_ids=[])
    with pytest.raises(InvalidRequest):
        heartbeats.hear_devices(session, bob, RULE, device_ids=["x"] * 1001)


def test_a_heartbeat_touches_no_index(session, make_device, hear):
    """As narrow a write as there is: the next version of the row lies in the same page, and indexes point to it."""
    device_id = make_device()
    pages = set()
    for _ in range(20):
        hear(device_id)
        ctid = session.scalar(
            sa.text("select ctid::text from device_presence where device_id = :id"), {"id": device_id}
        )
        pages.add(ctid.split(",")[0])
    assert len(pages) == 1
