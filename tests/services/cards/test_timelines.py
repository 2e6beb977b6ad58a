"""A card's timeline on a real database: everything that happened to it, once, cut to who may see it."""

import pytest
import sqlalchemy as sa

from services.cards import usecases
from services.cards.devices.domain import BindingLimits, HeartbeatRule
from services.cards.devices.usecases import bind_device, unbind_device
from services.cards.domain.timelines import KINDS, cut_changes
from services.cards.timeline.models import CardEvent
from services.cards.timeline.queries import list_card_timeline
from shared.contracts.cards import CardNotActive, CardNotFound
from shared.paging import InvalidCursor
from tests.conftest import AURORA, BOREALIS
from tests.services.cards.conftest import VISA

RULE, ROOM = HeartbeatRule(interval_seconds=60, grace_seconds=60), BindingLimits(devices_per_card=5, cards_per_device=5)


@pytest.fixture
def timeline(session, alice):
    """Return a card's timeline, the latest first, as Alice sees it."""

    def read(card, passport=alice, **filters):
        return list_card_timeline(session, passport, card_id=card["id"], **filters)["items"]

    return read


def test_everything_that_happened_stands_in_one_list(session, alice, cipher, make_card, timeline) -> None:
    card = make_card(merchant_id=AURORA)
    card_id = card["id"]
    usecases.activate_card(session, alice, card_id=card_id)
    usecases.update_card(session, alice, card_id=card_id, holder_name="Grace Hopper")
    usecases.update_card(session, alice, card_id=card_id, limits={"daily_amount": "100.00"})
    device = {"fingerprint": "f1", "name": "Till 1", "platform": "android"}
    bound = bind_device(session, alice, cipher, ROOM, RULE, card_id=card_id, **device)
    unbind_device(session, alice, RULE, device_id=bound["device_id"], card_id=card_id, reason="Broken.")
    usecases.reveal_card(session, alice, cipher, card_id=card_id, reason="The holder asked.")
    usecases.freeze_card(session, alice, card_id=card_id, reason="Reported lost.")
    rows = timeline(card)
    assert [(row["kind"], row["event"]) for row in rows] == [
        ("status", "CardFrozen"),
        ("reveal", "CardRevealed"),
        ("device", "DeviceUnbound"),
        ("device", "DeviceBound"),
        ("limits", "CardUpdated"),
        ("details", "CardUpdated"),
        ("status", "CardActivated"),
        ("merchant", "CardAssigned"),
        ("status", "CardCreated"),
    ]
    frozen, revealed = rows[:2]
    assert frozen["changes"] == {"status": {"before": "active", "after": "frozen"}}
    assert (frozen["reason"], frozen["actor_name"], frozen["merchant_id"]) == ("Reported lost.", "Alice", AURORA)
    assert revealed["reason"] == "The holder asked."
    assert rows[3]["details"]["device_id"] == bound["device_id"]
    assert rows[4]["changes"]["limits"]["after"]["daily_amount"] == "100.00"
    assert rows[8]["details"] == {"brand": "visa", "currency": "CNY"}


def test_what_was_refused_did_not_happen(session, alice, make_card, timeline) -> None:
    card = make_card()
    with pytest.raises(CardNotActive):
        usecases.freeze_card(session, alice, card_id=card["id"], reason="x")
    assert [row["event"] for row in timeline(card)] == ["CardCreated"]


def test_event_and_row_of_the_timeline_are_one_transaction(session, make_card, told) -> None:
    nested = session.begin_nested()
    its_rows = sa.select(sa.func.count()).where(CardEvent.card_id == make_card(merchant_id=AURORA)["id"])
    assert (session.scalar(its_rows), len(told())) == (2, 2)
    nested.rollback()
    assert (session.scalar(its_rows), told()) == (0, [])


def test_list_is_filtered_and_paged(session, alice, make_card, timeline) -> None:
    card = make_card()
    for verb in (usecases.activate_card, usecases.freeze_card, usecases.unfreeze_card):
        verb(session, alice, card_id=card["id"], **({"reason": "x"} if verb is usecases.freeze_card else {}))
    usecases.update_card(session, alice, card_id=card["id"], holder_name="Grace")
    assert [row["event"] for row in timeline(card, kind="details")] == ["CardUpdated"]
    whole, read, cursor = timeline(card), [], None
    while True:
        page = list_card_timeline(session, alice, card_id=card["id"], limit=2, cursor=cursor)
        read += page["items"]
        if (cursor := page["next_cursor"]) is None:
            break
    assert read == whole
    assert [row["event"] for row in timeline(card, to_time=whole[0]["time"])] == [r["event"] for r in whole[1:]]
    assert timeline(card, from_time=whole[0]["time"]) == whole[:1]
    with pytest.raises(InvalidCursor):
        timeline(card, cursor="x")


def test_what_happened_at_another_merchant_is_not_shown(session, alice, bob, charlie, make_card, timeline) -> None:
    card = make_card(merchant_id=AURORA)
    usecases.activate_card(session, alice, card_id=card["id"])
    usecases.assign_card(session, alice, card_id=card["id"], merchant_id=BOREALIS)
    [given] = timeline(card, charlie)
    assert given["changes"] == {"merchant_id": {"before": None, "after": BOREALIS}}
    assert timeline(card)[0]["changes"] == {"merchant_id": {"before": AURORA, "after": BOREALIS}}
    with pytest.raises(CardNotFound):
        timeline(card, bob)


def test_no_number_and_no_token_stands_in_it(session, alice, make_card, timeline) -> None:
    card = make_card(number=VISA)
    usecases.update_card(session, alice, card_id=card["id"], holder_name=f"Ada {VISA}")
    usecases.close_card(session, alice, card_id=card["id"], reason=f"see {VISA} and chr_c2VjcmV0c2VjcmV0")
    assert VISA not in str(timeline(card))
    assert timeline(card)[0]["reason"] == "see ***1111 and ***"


def test_merchants_that_somebody_does_not_see_are_cut_from_changes() -> None:
    changes = {"merchant_id": {"before": AURORA, "after": None}, "status": {"before": 1, "after": 2}}
    assert cut_changes(changes, None) == cut_changes(changes, frozenset({AURORA})) == changes
    assert cut_changes(changes, frozenset()) == changes | {"merchant_id": {"before": None, "after": None}}
    assert cut_changes(None, frozenset()) is None
    assert "limits" in KINDS
