"""Devices bound to cards, changed, blocked, unbound: on a real database, as use cases."""

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from services.cards import usecases as cards
from services.cards.devices import log_queries, queries, usecases
from services.cards.devices.domain import BindingLimits, HeartbeatRule
from services.cards.devices.models import CardDevice, Presence
from shared.contracts.cards import CardIsClosed, CardNotFound, NumberInAddress
from shared.contracts.devices import (
    CardDeviceLimitReached,
    CardHasNoMerchant,
    DeviceAlreadyBound,
    DeviceCardLimitReached,
    DeviceIsBlocked,
    DeviceNotBound,
    DeviceNotFound,
    DeviceNotNamed,
    DeviceOfOtherMerchant,
)
from shared.errors import InvalidRequest
from shared.paging import InvalidCursor
from shared.times import parse_rfc3339
from tests.conftest import AURORA, BOREALIS
from tests.services.cards.conftest import VISA

LIMITS = BindingLimits(devices_per_card=3, cards_per_device=2)
RULE = HeartbeatRule(interval_seconds=60, grace_seconds=120)
Bind = Callable[..., Any]


@pytest.fixture
def card(make_card) -> str:
    return make_card(merchant_id=AURORA)["id"]


@pytest.fixture
def bind(session, alice, cipher) -> Bind:
    """Bind a device: a new one with a fingerprint of its own unless it is named."""
    numbers = itertools.count(1)

    def run(card_id: str, passport=alice, *, limits=LIMITS, **device: Any):
        if not device:
            device = {"fingerprint": f"fp-{next(numbers)}", "name": "Till 1", "platform": "android"}
        return usecases.bind_device(session, passport, cipher, limits, RULE, card_id=card_id, **device)

    return run


@pytest.fixture
def unbind(session, alice) -> Callable[..., Any]:
    return lambda device_id, passport=alice, **which: usecases.unbind_device(
        session, passport, RULE, device_id=device_id, **which
    )


@pytest.fixture
def update(session, alice) -> Callable[..., Any]:
    return lambda device_id, passport=alice, **fields: usecases.update_device(
        session, passport, RULE, device_id=device_id, **fields
    )


@pytest.fixture
def logged(session, alice) -> Callable[[str], list[tuple[str, str | None, str | None]]]:
    """Return what the device log says of a device, oldest first: action, card, detail."""

    def read(device_id: str):
        rows = log_queries.list_logs(session, alice, device_id=device_id)["items"]
        assert {row["source"] for row in rows} <= {"system"}
        return [(row["action"], row["card_id"], row["detail"]) for row in reversed(rows)]

    return read


def status_of(session, alice, device_id: str) -> str:
    return queries.get_device(session, alice, RULE, device_id=device_id)["status"]


def test_a_device_is_bound_told_of_and_logged(session, bind, card, bob, told, logged):
    bound = bind(card, bob)
    assert bound["card_id"] == card
    assert (bound["status"], bound["unbound_at"], bound["connection"], bound["last_seen_at"]) == (
        "bound", None, None, None,
    )  # fmt: skip
    device = queries.get_device(session, bob, RULE, device_id=bound["device_id"])
    assert (device["merchant_id"], device["card_ids"], device["bound_at"]) == (AURORA, [card], bound["bound_at"])
    name, envelope = told()[-1]
    assert name == "DeviceBound"
    assert (envelope["resource_type"], envelope["resource_id"]) == ("device", bound["device_id"])
    assert (envelope["merchant_id"], envelope["payload"]["card_id"]) == (AURORA, card)
    assert logged(bound["device_id"]) == [("bind", card, None)]


def test_a_known_fingerprint_is_the_same_device_and_keeps_its_name(bind, make_card, card):
    first = bind(card, fingerprint="fp", name="Till", platform="ios")
    other = make_card(merchant_id=AURORA)["id"]
    again = bind(other, fingerprint="fp", name="Renamed", platform="android")
    assert again["device_id"] == first["device_id"]
    assert (again["name"], again["platform"]) == ("Till", "ios")


def test_a_fingerprint_of_another_merchant_is_another_device(bind, make_card, card):
    first = bind(card, fingerprint="fp", name="Till", platform="ios")
    other = bind(make_card(merchant_id=BOREALIS)["id"], fingerprint="fp", name="Till", platform="ios")
    assert other["device_id"] != first["device_id"]


@pytest.mark.parametrize(
    "device",
    [
        {"device_id": "dev_1", "fingerprint": "fp", "name": "n", "platform": "p"},
        {"device_id": "dev_1", "name": "n"},
        {"fingerprint": "fp", "name": "n"},
        {"fingerprint": "fp", "platform": "p"},
        {"name": "n", "platform": "p"},
        {"device_id": None},
    ],
)
def test_a_device_is_named_by_its_id_or_described_whole(bind, card, device):
    with pytest.raises(DeviceNotNamed):
        bind(card, **device)


def test_a_card_takes_so_many_devices_and_no_more(bind, unbind, card):
    bound = [bind(card)["device_id"] for _ in range(3)]
    with pytest.raises(CardDeviceLimitReached) as refused:
        bind(card)
    assert refused.value.extra == {"limit": 3}
    unbind(bound[0])
    bind(card)


def test_a_device_takes_so_many_cards_and_no_more(bind, unbind, make_card):
    ids = [make_card(merchant_id=AURORA)["id"] for _ in range(3)]
    device_id = bind(ids[0])["device_id"]
    bind(ids[1], device_id=device_id)
    with pytest.raises(DeviceCardLimitReached) as refused:
        bind(ids[2], device_id=device_id)
    assert refused.value.extra == {"limit": 2}
    unbind(device_id, card_id=ids[0])
    bind(ids[2], device_id=device_id)


def test_a_refused_new_device_is_not_kept_by_a_transaction_that_ends(session, bind, card, alice):
    for _ in range(3):
        bind(card)
    with pytest.raises(CardDeviceLimitReached), session.begin_nested():
        bind(card, fingerprint="late", name="n", platform="p")
    assert queries.list_devices(session, alice, RULE, q="late")["items"] == []


def test_a_device_is_bound_to_a_card_once(bind, card):
    device_id = bind(card)["device_id"]
    with pytest.raises(DeviceAlreadyBound):
        bind(card, device_id=device_id)


def test_a_device_stays_with_its_merchant(bind, make_card, card, bob, charlie):
    theirs = make_card(merchant_id=BOREALIS)["id"]
    device_id = bind(card)["device_id"]
    with pytest.raises(DeviceOfOtherMerchant):
        bind(theirs, device_id=device_id)
    with pytest.raises(DeviceNotFound):
        bind(theirs, charlie, device_id=device_id)
    with pytest.raises(CardNotFound):
        bind(theirs, bob, device_id=device_id)


def test_cards_without_a_merchant_or_closed_take_no_device(session, alice, bind, make_card, card):
    with pytest.raises(CardHasNoMerchant):
        bind(make_card()["id"])
    cards.close_card(session, alice, card_id=card, reason="Done.")
    with pytest.raises(CardIsClosed):
        bind(card)


def test_what_another_merchant_has_does_not_exist(session, bind, unbind, update, card, charlie):
    device_id = bind(card)["device_id"]
    for attempt in (
        lambda: queries.get_device(session, charlie, RULE, device_id=device_id),
        lambda: queries.list_device_cards(session, charlie, device_id=device_id),
        lambda: unbind(device_id, charlie),
        lambda: update(device_id, charlie, name="Mine"),
        lambda: update(device_id, charlie, status="blocked", reason="x"),
    ):
        with pytest.raises(DeviceNotFound):
            attempt()
    with pytest.raises(CardNotFound):
        queries.list_card_devices(session, charlie, RULE, card_id=card)
    assert queries.list_devices(session, charlie, RULE)["items"] == []
    assert log_queries.list_logs(session, charlie)["items"] == []
    assert log_queries.list_logs(session, charlie, device_id=device_id)["items"] == []
    assert log_queries.list_logs(session, charlie, merchant_id=AURORA)["items"] == []


def test_unbinding_ends_the_interval_and_history_tells_it(session, alice, bind, unbind, card, told, logged):
    bound = bind(card)
    device_id = bound["device_id"]
    after = unbind(device_id, card_id=card, reason="Sold.")
    assert (after["status"], after["card_ids"], after["bound_at"]) == ("unbound", [], None)
    assert queries.list_card_devices(session, alice, RULE, card_id=card)["items"] == []
    again = bind(card, device_id=device_id)
    [now, before] = queries.list_card_devices(session, alice, RULE, card_id=card, history=True)["items"]
    assert (now["bound_at"], now["unbound_at"]) == (again["bound_at"], None)
    assert (before["bound_at"], before["unbound_because"]) == (bound["bound_at"], "unbound")
    assert bound["bound_at"] <= before["unbound_at"] <= now["bound_at"]
    of_device = queries.list_device_cards(session, alice, device_id=device_id, history=True)["items"]
    assert [(row["card_id"], row["unbound_at"]) for row in of_device] == [(card, None), (card, before["unbound_at"])]
    [event] = [e for n, e in told() if n == "DeviceUnbound"]
    assert (event["payload"]["because"], event["payload"]["reason"]) == ("unbound", "Sold.")
    assert logged(device_id) == [("bind", card, None), ("unbind", card, "Sold."), ("bind", card, None)]


def test_unbinding_from_all_cards_ends_each_and_a_second_time_nothing(bind, unbind, make_card, told):
    ids = [make_card(merchant_id=AURORA)["id"] for _ in range(2)]
    device_id = bind(ids[0])["device_id"]
    bind(ids[1], device_id=device_id)
    with pytest.raises(DeviceNotBound):
        unbind(device_id, card_id=make_card(merchant_id=AURORA)["id"])
    assert unbind(device_id, card_id=ids[0])["status"] == "bound"
    bind(ids[0], device_id=device_id)
    assert unbind(device_id)["status"] == "unbound"
    assert [e["payload"]["card_id"] for n, e in told() if n == "DeviceUnbound"] == [ids[0], ids[1], ids[0]]
    with pytest.raises(DeviceNotBound):
        unbind(device_id)


def test_a_closed_card_lets_its_devices_go(session, alice, bind, make_card, card, told, logged):
    other = make_card(merchant_id=AURORA)["id"]
    alone, shared = bind(card)["device_id"], bind(card)["device_id"]
    bind(other, device_id=shared)
    cards.close_card(session, alice, card_id=card, reason="Done.")
    assert status_of(session, alice, alone) == "unbound"
    assert status_of(session, alice, shared) == "bound"
    assert {e["payload"]["because"] for n, e in told() if n == "DeviceUnbound"} == {"card_closed"}
    assert logged(alone)[-1] == ("unbind", card, "card_closed")


def test_a_card_that_changes_hands_leaves_its_devices_behind(session, alice, charlie, bind, card):
    device_id = bind(card)["device_id"]
    cards.assign_card(session, alice, card_id=card, merchant_id=BOREALIS)
    assert status_of(session, alice, device_id) == "unbound"
    # The new merchant sees the card, and nothing of who had what on it before.
    page = queries.list_card_devices(session, charlie, RULE, card_id=card, history=True)
    assert page["items"] == []
    [ended] = queries.list_card_devices(session, alice, RULE, card_id=card, history=True)["items"]
    assert ended["unbound_because"] == "card_assigned"
    assert bind(card, charlie, fingerprint="fp-c", name="n", platform="p")["device_id"] != device_id


def test_assigning_many_cards_ends_the_bindings_of_those_that_move(session, alice, bind, make_card, card):
    stays = make_card(merchant_id=BOREALIS)["id"]
    left, kept = bind(card)["device_id"], bind(stays)["device_id"]
    cards.assign_cards(session, alice, card_ids=[card, stays], merchant_id=BOREALIS)
    assert (status_of(session, alice, left), status_of(session, alice, kept)) == ("unbound", "bound")


def test_a_blocked_device_keeps_its_cards_and_gets_no_more(session, bind, update, make_card, card, told, logged):
    device_id = bind(card)["device_id"]
    with pytest.raises(InvalidRequest) as refused:
        update(device_id, status="blocked")
    assert "reason" in refused.value.errors
    blocked = update(device_id, status="blocked", reason="Stolen.")
    assert (blocked["status"], blocked["status_reason"], blocked["card_ids"]) == ("blocked", "Stolen.", [card])
    update(device_id, status="blocked", reason="Again.")
    [event] = [e for n, e in told() if n == "DeviceBlocked"]
    assert event["payload"]["changes"] == {"status": {"before": "bound", "after": "blocked"}}
    with pytest.raises(DeviceIsBlocked):
        bind(make_card(merchant_id=AURORA)["id"], device_id=device_id)
    freed = update(device_id, status="bound")
    assert (freed["status"], freed["status_reason"]) == ("bound", None)
    assert [row[0] for row in logged(device_id)] == ["bind", "block", "unblock"]
    assert [n for n, _ in told()][-1] == "DeviceUnblocked"


def test_unbinding_a_blocked_device_does_not_free_it(bind, unbind, update, card):
    device_id = bind(card)["device_id"]
    update(device_id, status="blocked", reason="Stolen.")
    assert unbind(device_id)["status"] == "blocked"
    with pytest.raises(DeviceIsBlocked):
        bind(card, device_id=device_id)
    assert update(device_id, status="bound")["status"] == "unbound"
    with pytest.raises(DeviceNotBound):
        update(device_id, status="bound")


def test_a_name_and_a_platform_change_and_nothing_when_they_are_the_same(bind, update, card, told, logged):
    device_id = bind(card)["device_id"]
    before = len(told())
    same = update(device_id, name="Till 1")
    assert len(told()) == before
    changed = update(device_id, name="Till 2", platform="ios")
    assert (changed["name"], changed["platform"]) == ("Till 2", "ios")
    assert changed["updated_at"] > same["updated_at"]
    name, envelope = told()[-1]
    assert name == "DeviceUpdated"
    assert envelope["payload"]["changes"]["name"] == {"before": "Till 1", "after": "Till 2"}
    assert logged(device_id)[-1] == ("update", None, "name: Till 2, platform: ios")


def test_a_card_number_is_kept_in_no_field_of_a_device(session, bind, update, unbind, make_card, card, told):
    spaced = "4111 1111 1111 1111"
    bound = bind(card, fingerprint=VISA, name=f"of {VISA}", platform=f"{spaced}x")
    device_id = bound["device_id"]
    assert bind(make_card(merchant_id=AURORA)["id"], fingerprint=VISA, name="n", platform="p")["device_id"] == device_id
    update(device_id, name=f"now {spaced}", status="blocked", reason=f"saw {VISA}")
    unbind(device_id, reason=f"again {spaced}")
    session.flush()
    kept = [
        str(list(session.execute(sa.text(f"select * from {table}"))))
        for table in ("devices", "card_devices", "device_logs", "device_log_keys", "device_presence")
    ]
    for text in (*kept, str(told()), str(bound)):
        assert VISA not in text
        assert spaced not in text


def test_an_imei_is_kept_as_it_is_though_it_looks_like_a_card(bind, card):
    assert bind(card, fingerprint="490154203237518", name="n", platform="p")["fingerprint"] == "490154203237518"


def test_lists_are_filtered_and_paged(session, alice, bind, update, unbind, make_card, card):
    other = make_card(merchant_id=BOREALIS)["id"]
    till = bind(card, fingerprint="fp-till", name="Till 50%", platform="ios")["device_id"]
    phone = bind(card, fingerprint="fp-phone", name="Phone", platform="android")["device_id"]
    desk = bind(other, fingerprint="fp-desk", name="Desk", platform="android")["device_id"]
    update(phone, status="blocked", reason="x")
    unbind(desk)

    def found(**filters: Any) -> list[str]:
        return [device["device_id"] for device in queries.list_devices(session, alice, RULE, **filters)["items"]]

    assert found() == [desk, phone, till]
    listed = {d["device_id"]: d["card_ids"] for d in queries.list_devices(session, alice, RULE)["items"]}
    assert listed == {till: [card], phone: [card], desk: []}
    assert found(q="0%") == [till]
    assert found(q="till") == [till]
    assert found(q="fp-desk") == [desk]
    assert found(q=phone) == [phone]
    assert found(status="blocked") == [phone]
    assert found(status="unbound") == [desk]
    assert found(merchant_id=BOREALIS) == [desk]
    assert found(card_id=card) == [phone, till]
    assert found(card_id=other) == []
    assert found(platform="android") == [desk, phone]
    assert found(connected="online") == []
    with pytest.raises(NumberInAddress):
        found(q=VISA)
    page = queries.list_devices(session, alice, RULE, limit=2)
    rest = queries.list_devices(session, alice, RULE, limit=2, cursor=page["next_cursor"])
    assert [d["device_id"] for d in page["items"] + rest["items"]] == [desk, phone, till]
    assert rest["next_cursor"] is None
    with pytest.raises(InvalidCursor):
        queries.list_devices(session, alice, RULE, cursor="WzFd")


def test_history_is_paged(session, alice, bind, unbind, card):
    device_id = bind(card)["device_id"]
    for _ in range(4):
        unbind(device_id)
        bind(card, device_id=device_id)
    seen, cursor = [], None
    while True:
        page = queries.list_card_devices(
            session, alice, RULE, card_id=card, history=True, limit=2, cursor=cursor
        )  # fmt: skip
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == 5
    assert seen == sorted(seen, key=lambda row: row["bound_at"], reverse=True)
    for newer, older in itertools.pairwise(seen):
        assert older["unbound_at"] <= newer["bound_at"]


@pytest.mark.parametrize(
    ("silent_seconds", "expected"), [(0, "online"), (59, "online"), (61, "late"), (179, "late"), (181, "offline")]
)
def test_connection_follows_the_last_heartbeat_by_the_databases_clock(
    session, alice, bind, card, silent_seconds, expected
):
    device_id = bind(card)["device_id"]
    now = session.scalar(sa.select(sa.func.clock_timestamp()))
    session.execute(sa.update(Presence).values(last_seen_at=now - timedelta(seconds=silent_seconds)))
    device = queries.get_device(session, alice, RULE, device_id=device_id)
    assert device["connection"] == expected
    assert parse_rfc3339(device["last_seen_at"]) == now - timedelta(seconds=silent_seconds)
    found = queries.list_devices(session, alice, RULE, connected=expected)["items"]
    assert [d["device_id"] for d in found] == [device_id]
    usecases.update_device(session, alice, RULE, device_id=device_id, status="blocked", reason="x")
    assert queries.get_device(session, alice, RULE, device_id=device_id)["connection"] is None


def test_an_interval_cannot_end_before_it_began(session, bind, card):
    device_id = bind(card)["device_id"]
    with pytest.raises(sa.exc.IntegrityError, match="ck_card_devices_order"), session.begin_nested():
        session.execute(
            sa.update(CardDevice)
            .where(CardDevice.device_id == device_id)
            .values(unbound_at=sa.text("bound_at - interval '1 s'"), unbound_because="unbound")
        )


def test_a_second_open_binding_of_one_pair_is_impossible(session, bind, card):
    device_id = bind(card)["device_id"]
    with pytest.raises(sa.exc.IntegrityError, match="uq_card_devices_open"), session.begin_nested():
        session.execute(
            sa.insert(CardDevice).values(
                card_id=card, device_id=device_id, bound_at=sa.func.clock_timestamp(), bound_by="x"
            )
        )
