"""The device log on a real database: batches, duplicates, order, searches, scope."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from services.cards import usecases as cards
from services.cards.devices import log_queries, logs, usecases
from services.cards.devices.domain import BindingLimits, HeartbeatRule
from shared.contracts.cards import NumberInAddress
from shared.contracts.devices import DeviceNotFound, InvalidLogBatch
from shared.errors import InvalidRequest
from shared.paging import InvalidCursor
from shared.times import parse_rfc3339, rfc3339, utc_now
from tests.conftest import AURORA, BOREALIS
from tests.services.cards.conftest import VISA

LIMITS = BindingLimits(devices_per_card=5, cards_per_device=5)
RULE = HeartbeatRule(interval_seconds=60, grace_seconds=120)
Store = Callable[..., Any]


@pytest.fixture
def card(make_card) -> str:
    return make_card(merchant_id=AURORA)["id"]


@pytest.fixture
def make_device(session, alice, cipher) -> Callable[[str, str], str]:
    """Bind a fresh device to a card and return its id."""

    def make(card_id: str, fingerprint: str = "fp") -> str:
        described = {"fingerprint": fingerprint, "name": "Till", "platform": "android"}
        bound = usecases.bind_device(session, alice, cipher, LIMITS, RULE, card_id=card_id, **described)
        return bound["device_id"]

    return make


@pytest.fixture
def device(make_device, card) -> str:
    return make_device(card)


@pytest.fixture
def store(session, bob, cipher) -> Store:
    return lambda device_id, *rows, passport=bob: logs.store_logs(
        session, passport, cipher, device_id=device_id, rows=list(rows)
    )


def row(number: int = 1, *, days_ago: float = 0, **fields: Any) -> dict[str, Any]:
    time = rfc3339(utc_now() - timedelta(days=days_ago, seconds=number))
    return {"event_id": f"e{number}", "time": time, "action": "payment", **fields}


def outcomes(view: Any) -> list[str]:
    return [item["outcome"] for item in view["items"]]


@pytest.fixture
def found(session, bob) -> Callable[..., list[str]]:
    """Return the event ids of what devices sent, by the list's own order."""

    def find(passport=bob, **filters: Any) -> list[str]:
        page = log_queries.list_logs(session, passport, **{"source": "device"} | filters)
        return [item["event_id"] for item in page["items"]]

    return find


def test_a_batch_is_stored_and_told_of_once(session, device, card, store, found, told, bob):
    view = store(device, row(1, card_id=card, result="failure", ip="192.0.2.7", detail="No cover."), row(2))
    assert (outcomes(view), view["stored"], view["duplicates"], view["refused"]) == (["stored"] * 2, 2, 0, 0)
    [first, _] = log_queries.list_logs(session, bob, source="device")["items"]
    received = parse_rfc3339(first.pop("received_at"))
    assert abs(received - utc_now()) < timedelta(minutes=1)
    assert first.pop("time")
    assert first == {
        "device_id": device,
        "event_id": "e1",
        "merchant_id": AURORA,
        "card_id": card,
        "source": "device",
        "action": "payment",
        "result": "failure",
        "ip": "192.0.2.7",
        "detail": "No cover.",
        "actor_name": "Bob",
    }
    name, envelope = told()[-1]
    assert (name, envelope["payload"]["stored"], envelope["merchant_id"]) == ("DeviceLogsStored", 2, AURORA)


def test_a_row_that_comes_again_is_a_duplicate_whatever_it_says(device, store, found, told):
    assert outcomes(store(device, row(1), row(1, detail="in the same batch"), row(2))) == [
        "stored", "duplicate", "stored",
    ]  # fmt: skip
    before = len(told())
    again = store(device, row(2, action="login"), row(1, days_ago=40))
    assert outcomes(again) == ["duplicate", "duplicate"]
    assert len(told()) == before
    assert found() == ["e1", "e2"]
    assert found(action="login") == []


def test_two_devices_may_use_the_same_event_id(device, card, make_device, store, found):
    other = make_device(card, "fp-2")
    assert outcomes(store(device, row(1))) == outcomes(store(other, row(1))) == ["stored"]
    assert found() == ["e1", "e1"]


def test_rows_come_in_any_order_over_months_and_are_listed_by_their_time(device, store, found):
    old = [row(n, days_ago=n * 31) for n in (3, 12, 1)]
    store(device, row(7))
    assert outcomes(store(device, *old)) == ["stored"] * 3
    assert found() == ["e7", "e1", "e3", "e12"]


def test_a_wrong_row_is_refused_and_the_others_are_stored(device, store, found):
    view = store(device, row(1), row(2, action="Not a word"), "nonsense", row(3, card_id="car_x"), row(4))
    assert outcomes(view) == ["stored", "refused", "refused", "refused", "stored"]
    assert [set(item.get("errors", {})) for item in view["items"]] == [
        set(), {"action"}, {"_schema"}, {"card_id"}, set(),
    ]  # fmt: skip
    assert (view["stored"], view["refused"]) == (2, 3)
    assert found() == ["e1", "e4"]
    # What was refused may be sent again, put right.
    assert outcomes(store(device, row(2))) == ["stored"]


@pytest.mark.parametrize("rows", [[], None, {}, "rows", [{}] * 1001])
def test_a_batch_is_a_list_of_one_to_a_thousand(session, bob, cipher, device, rows):
    with pytest.raises(InvalidLogBatch):
        logs.store_logs(session, bob, cipher, device_id=device, rows=rows)


def test_a_thousand_rows_go_in_at_once(device, store, found):
    view = store(device, *[row(n) for n in range(1000)])
    assert view["stored"] == 1000
    assert len(found(limit=500)) == 500


def test_a_device_speaks_of_cards_that_it_was_ever_bound_to(session, alice, make_card, card, device, store):
    usecases.unbind_device(session, alice, RULE, device_id=device)
    other = make_card(merchant_id=AURORA)["id"]
    view = store(device, row(1, card_id=card), row(2, card_id=other))
    assert outcomes(view) == ["stored", "refused"]


def test_another_merchants_device_takes_no_rows_and_shows_none(session, charlie, cipher, device, store, found):
    store(device, row(1))
    with pytest.raises(DeviceNotFound):
        store(device, row(2), passport=charlie)
    with pytest.raises(DeviceNotFound):
        store("dev_unknown", row(2))
    for filters in ({}, {"device_id": device}, {"merchant_id": AURORA}, {"q": "payment"}):
        assert found(charlie, **filters) == []


def test_rows_stay_with_the_merchant_when_the_card_goes(session, alice, card, device, store, found, charlie):
    store(device, row(1, card_id=card))
    cards.assign_card(session, alice, card_id=card, merchant_id=BOREALIS)
    assert found(charlie, card_id=card) == []
    assert found(card_id=card) == ["e1"]


def test_a_card_number_in_any_field_is_kept_in_none(session, device, store, told):
    spaced = "4111 1111 1111 1111"
    rows = [
        row(1, detail=f"card {VISA}, again {spaced}"),
        row(2, event_id=VISA),
        row(3, event_id=spaced),
        row(4, action=f"a{VISA}"),
        row(5, result=f"a{VISA}"),
        row(6, ip=VISA),
        row(7, card_id=VISA),
        row(8) | {VISA: 1},
        row(9, time=VISA),
    ]
    view = store(device, *rows)
    assert outcomes(view) == ["stored"] * 3 + ["refused"] * 6
    # Hidden or not, equal ids are equal.
    assert outcomes(store(device, row(2, event_id=VISA))) == ["duplicate"]
    kept = [str(list(session.execute(sa.text(f"select * from {t}")))) for t in ("device_logs", "device_log_keys")]
    for text in (*kept, str(told()), str(view)):
        assert VISA not in text
        assert spaced not in text


def test_each_filter_narrows(device, card, make_card, make_device, store, found):
    second = make_device(make_card(merchant_id=AURORA)["id"], "fp-2")
    store(device, row(1, action="login", detail="by Ada, 50% sure"), row(2, result="failure", ip="192.0.2.7"))
    store(device, row(3, card_id=card, days_ago=3))
    store(second, row(4, days_ago=10))
    assert found() == ["e1", "e2", "e3", "e4"]
    assert found(device_id=second) == ["e4"]
    assert found(card_id=card) == ["e3"]
    assert found(action="login") == ["e1"]
    assert found(result="failure") == ["e2"]
    assert found(merchant_id=AURORA) == ["e1", "e2", "e3", "e4"]
    assert found(q="ADA") == ["e1"]
    assert found(q="0% s") == ["e1"]
    assert found(q="0_ s") == []
    assert found(q="192.0.2") == ["e2"]
    week_ago, day_ago = (rfc3339(utc_now() - timedelta(days=days)) for days in (7, 1))
    assert found(from_time=week_ago) == ["e1", "e2", "e3"]
    assert found(from_time=week_ago, to_time=day_ago) == ["e3"]
    assert found(source="system", device_id=second) != []


def test_a_range_of_time_is_half_open(device, store, found):
    time = rfc3339(utc_now() - timedelta(hours=1))
    store(device, row(1) | {"time": time})
    assert found(from_time=time) == ["e1"]
    assert found(to_time=time) == []


def test_a_keyword_alone_looks_through_the_last_thirty_days(device, store, found):
    store(device, row(1, detail="quokka"), row(2, days_ago=40, detail="quokka"))
    assert found(q="quokka") == ["e1"]
    assert found(q="quokka", device_id=device) == ["e1", "e2"]
    assert found(q="quokka", from_time=rfc3339(utc_now() - timedelta(days=60))) == ["e1", "e2"]
    assert found(q="quokka", to_time=rfc3339(utc_now() - timedelta(days=35))) == ["e2"]


def test_pages_follow_each_other_for_whoever_sees_all_or_some(session, device, store, found, alice, bob):
    store(device, *[row(n) for n in range(1, 8)], row(90, days_ago=35))
    same = rfc3339(utc_now())
    store(device, *[row(n) | {"time": same} for n in range(100, 104)])
    for passport in (alice, bob):
        seen, cursor = [], None
        while True:
            page = log_queries.list_logs(session, passport, source="device", limit=3, cursor=cursor)
            seen += [item["event_id"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert sorted(seen[:4]) == ["e100", "e101", "e102", "e103"]
        assert seen[4:] == [*(f"e{n}" for n in range(1, 8)), "e90"]


def test_what_makes_no_sense_is_refused(session, bob):
    with pytest.raises(NumberInAddress):
        log_queries.list_logs(session, bob, q=VISA)
    for cursor in ("nonsense", "WzFd", "WzEsMV0", "WyJ4IiwxXQ"):
        with pytest.raises((InvalidCursor, InvalidRequest)):
            log_queries.list_logs(session, bob, cursor=cursor)
