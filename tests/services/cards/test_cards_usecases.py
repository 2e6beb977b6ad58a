"""What can be done to cards, on a real PostgreSQL."""

import pytest
import sqlalchemy as sa
from stdnum import luhn

from services.cards import making, queries, usecases
from services.cards.models import Assignment, Card
from shared.contracts.cards import (
    BinExhausted,
    CardAlreadyFrozen,
    CardIsClosed,
    CardNotFound,
    CardNumberTaken,
    InvalidBin,
    InvalidCardNumber,
    InvalidExpiry,
    MerchantRequired,
    NumberInAddress,
)
from shared.contracts.users import MerchantMissing, MerchantNotFound
from shared.errors import InvalidRequest, PermissionDenied
from shared.money import InvalidMoney
from shared.paging import encode_cursor
from tests.conftest import AURORA, BOREALIS
from tests.services.cards.conftest import MASTERCARD, VISA

NO_FILTER = dict.fromkeys(("q", "status", "merchant_id", "brand", "currency", "last4")) | {"limit": 50, "cursor": None}


def list_ids(session, passport, **filters):
    return [card["id"] for card in queries.list_cards(session, passport, **NO_FILTER | filters)["items"]]


def test_a_new_card_is_inactive_and_shows_its_number_masked(make_card, told):
    card = make_card(number="4111 1111 1111 1111")
    assert card["number_masked"] == "411111******1111"
    assert (card["bin"], card["last4"], card["brand"]) == ("411111", "1111", "visa")
    assert (card["status"], card["merchant_id"], card["expiry"]) == ("inactive", None, "2029-05")
    assert [name for name, _ in told()] == ["CardCreated"]


def test_the_full_number_lies_nowhere_but_sealed(make_card, session, alice, cipher):
    card = make_card(number=VISA, merchant_id=AURORA)
    usecases.freeze_card(
        session, alice, card_id=usecases.activate_card(session, alice, card_id=card["id"])["id"], reason="x"
    )
    for table in ("cards", "card_assignments", "outbox"):
        dump = "".join(session.execute(sa.text(f"select t::text from {table} t")).scalars())
        assert VISA not in dump
        assert VISA.encode().hex() not in dump
    row = session.get_one(Card, card["id"])
    assert row.number_key_id == "k1"
    assert cipher.open(row.sealed_number(), card_id=row.id) == VISA


def test_a_number_in_a_name_or_a_reason_is_masked_before_it_is_kept(make_card, session, alice, cipher):
    note = f"see {MASTERCARD[:4]} {MASTERCARD[4:]}"
    card_id = make_card(holder_name=note)["id"]
    usecases.update_card(session, alice, card_id=card_id, holder_name=f"again {MASTERCARD}")
    usecases.activate_card(session, alice, card_id=card_id)
    usecases.freeze_card(session, alice, card_id=card_id, reason=note)
    usecases.reveal_card(session, alice, cipher, card_id=card_id, reason=note)
    assert usecases.close_card(session, alice, card_id=card_id, reason=note)["status_reason"] == "see ***4444"
    for table in ("cards", "outbox"):
        dump = "".join(session.execute(sa.text(f"select t::text from {table} t")).scalars())
        assert MASTERCARD[4:] not in dump


def test_a_card_made_from_a_bin_has_a_valid_number_of_its_own(make_card, session, alice, cipher):
    ids = [make_card(bin="37828224")["id"] for _ in range(20)]
    numbers = {
        usecases.reveal_card(session, alice, cipher, card_id=card_id, reason="check")["number"] for card_id in ids
    }
    assert len(numbers) == 20
    assert all(luhn.is_valid(n) and n.startswith("37828224") and len(n) == 15 for n in numbers)


def test_a_bin_without_free_numbers_is_exhausted(make_card, monkeypatch):
    monkeypatch.setattr(making.secrets, "randbelow", lambda _: 7)
    make_card(bin="411111")
    with pytest.raises(BinExhausted):
        make_card(bin="411111")


def test_the_same_number_twice_is_refused(make_card):
    make_card(number=VISA, merchant_id=AURORA)
    with pytest.raises(CardNumberTaken):
        make_card(number="4111-1111-1111-1111", merchant_id=BOREALIS)


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"number": "4111111111111112"}, InvalidCardNumber),
        ({"number": None, "bin": "12"}, InvalidBin),
        ({"number": VISA, "bin": "411111"}, InvalidRequest),
        ({"number": None, "bin": None}, InvalidRequest),
        ({"currency": "XXZ"}, InvalidMoney),
        ({"expiry": "2029-13"}, InvalidExpiry),
        ({"merchant_id": "mer_unheard_of"}, MerchantMissing),
    ],
)
def test_an_invalid_card_is_refused(make_card, session, fields, refusal):
    with pytest.raises(refusal):
        make_card(**fields)
    assert session.scalar(sa.select(sa.func.count()).select_from(Card)) == 0


def test_expiry_is_taken_as_cards_print_it_and_has_a_default(make_card):
    assert make_card(expiry="05/29")["expiry"] == "2029-05"
    assert len(make_card(expiry=None)["expiry"]) == len("2029-05")


def test_a_card_lives_from_inactive_to_closed(make_card, session, alice, told):
    card_id = make_card()["id"]
    assert usecases.activate_card(session, alice, card_id=card_id)["status"] == "active"
    frozen = usecases.freeze_card(session, alice, card_id=card_id, reason="Reported lost.")
    assert (frozen["status"], frozen["status_reason"]) == ("frozen", "Reported lost.")
    with pytest.raises(CardAlreadyFrozen):
        usecases.freeze_card(session, alice, card_id=card_id, reason="Again.")
    thawed = usecases.unfreeze_card(session, alice, card_id=card_id)
    assert (thawed["status"], thawed["status_reason"]) == ("active", None)
    assert usecases.close_card(session, alice, card_id=card_id, reason="Done.")["status"] == "closed"
    with pytest.raises(CardIsClosed):
        usecases.activate_card(session, alice, card_id=card_id)
    events = dict(told()[1:])
    assert list(events) == ["CardActivated", "CardFrozen", "CardUnfrozen", "CardClosed"]
    assert events["CardFrozen"]["payload"]["changes"] == {"status": {"before": "active", "after": "frozen"}}
    assert events["CardFrozen"]["payload"]["reason"] == "Reported lost."
    assert events["CardClosed"]["resource_id"] == card_id


def test_an_update_tells_what_changed_and_nothing_when_nothing_did(make_card, session, alice, told):
    card_id = make_card()["id"]
    usecases.update_card(session, alice, card_id=card_id, holder_name="Grace Hopper", expiry="2029-05")
    usecases.update_card(session, alice, card_id=card_id, holder_name="Grace Hopper", expiry=None)
    [update] = [e for name, e in told() if name == "CardUpdated"]
    assert update["payload"]["changes"] == {"holder_name": {"before": "Ada Lovelace", "after": "Grace Hopper"}}


def test_a_closed_card_is_not_changed_or_assigned(make_card, session, alice):
    card_id = make_card()["id"]
    usecases.close_card(session, alice, card_id=card_id, reason="Done.")
    with pytest.raises(CardIsClosed):
        usecases.update_card(session, alice, card_id=card_id, holder_name="Grace Hopper")
    with pytest.raises(CardIsClosed):
        usecases.assign_card(session, alice, card_id=card_id, merchant_id=AURORA)
    with pytest.raises(CardIsClosed) as refusal:
        usecases.assign_cards(session, alice, card_ids=[card_id], merchant_id=AURORA)
    assert refusal.value.extra == {"card_ids": [card_id]}


def test_an_assignment_is_an_interval(make_card, session, alice, told):
    card_id = make_card(merchant_id=AURORA)["id"]
    usecases.assign_card(session, alice, card_id=card_id, merchant_id=BOREALIS)
    usecases.assign_card(session, alice, card_id=card_id, merchant_id=BOREALIS)
    usecases.assign_card(session, alice, card_id=card_id, merchant_id=None)
    rows = list(session.scalars(sa.select(Assignment).order_by(Assignment.id)))
    assert [row.merchant_id for row in rows] == [AURORA, BOREALIS]
    assert rows[0].unassigned_at == rows[1].assigned_at
    assert rows[1].unassigned_at is not None
    assert {row.assigned_by for row in rows} == {"usr_alice"}
    moves = [e for name, e in told() if name == "CardAssigned"]
    assert [move["payload"]["changes"]["merchant_id"] for move in moves] == [
        {"before": None, "after": AURORA},
        {"before": AURORA, "after": BOREALIS},
        {"before": BOREALIS, "after": None},
    ]
    assert [move["merchant_id"] for move in moves] == [AURORA, BOREALIS, BOREALIS]


def test_bulk_assignment_takes_all_in_the_order_named(make_card, session, alice, told):
    ids = [make_card()["id"] for _ in range(4)] + [make_card(merchant_id=AURORA)["id"]]
    wanted = [ids[2], ids[0], ids[2], ids[4]]
    answer = usecases.assign_cards(session, alice, card_ids=wanted, merchant_id=AURORA)
    assert [card["id"] for card in answer["items"]] == [ids[2], ids[0], ids[4]]
    assert {card["merchant_id"] for card in answer["items"]} == {AURORA}
    assert answer["changed"] == 2
    assert len([name for name, _ in told() if name == "CardAssigned"]) == 3


def test_bulk_assignment_takes_none_when_one_is_unknown(make_card, session, alice):
    ids = [make_card()["id"] for _ in range(3)]
    with pytest.raises(CardNotFound) as refusal:
        usecases.assign_cards(session, alice, card_ids=[*ids, "car_unknown"], merchant_id=AURORA)
    assert refusal.value.extra == {"card_ids": ["car_unknown"]}
    assert list_ids(session, alice, merchant_id=AURORA) == []


def test_a_thousand_cards_are_assigned_in_few_statements(make_card, session, alice):
    ids = [make_card()["id"] for _ in range(1000)]
    session.expire_all()
    statements = []
    sa.event.listen(session.get_bind(), "before_cursor_execute", lambda *a: statements.append(a[2]))
    assert usecases.assign_cards(session, alice, card_ids=ids, merchant_id=AURORA)["changed"] == 1000
    assert len(statements) < 20
    with pytest.raises(InvalidRequest):
        usecases.assign_cards(session, alice, card_ids=[*ids, "car_1001"], merchant_id=AURORA)


def test_reveal_answers_the_number_and_is_told_of(make_card, session, alice, cipher, told):
    card_id = make_card(number=VISA)["id"]
    answer = usecases.reveal_card(session, alice, cipher, card_id=card_id, reason="The holder asked.")
    assert answer == {"id": card_id, "number": VISA, "expiry": "2029-05"}
    name, envelope = told()[-1]
    assert (name, envelope["payload"]["reason"], envelope["actor"]["name"]) == (
        "CardRevealed",
        "The holder asked.",
        "Alice",
    )


def test_another_merchants_card_does_not_exist(make_card, session, alice, bob, charlie, cipher):
    card_id = make_card(merchant_id=AURORA)["id"]
    unassigned = make_card()["id"]
    assert list_ids(session, bob) == [card_id]
    assert list_ids(session, charlie) == []
    assert list_ids(session, alice) == [unassigned, card_id]
    for hidden, passport in ((card_id, charlie), (unassigned, bob), (unassigned, charlie)):
        acts = [
            lambda h=hidden, p=passport: queries.get_card(session, p, card_id=h),
            lambda h=hidden, p=passport: queries.list_assignments(session, p, card_id=h, limit=9, cursor=None),
            lambda h=hidden, p=passport: usecases.update_card(session, p, card_id=h, holder_name="x", expiry=None),
            lambda h=hidden, p=passport: usecases.activate_card(session, p, card_id=h),
            lambda h=hidden, p=passport: usecases.freeze_card(session, p, card_id=h, reason="x"),
            lambda h=hidden, p=passport: usecases.unfreeze_card(session, p, card_id=h),
            lambda h=hidden, p=passport: usecases.close_card(session, p, card_id=h, reason="x"),
            lambda h=hidden, p=passport: usecases.reveal_card(session, p, cipher, card_id=h, reason="x"),
            lambda h=hidden, p=passport: usecases.assign_card(session, p, card_id=h, merchant_id=min(p.merchants)),
            lambda h=hidden, p=passport: usecases.assign_cards(session, p, card_ids=[h], merchant_id=min(p.merchants)),
        ]
        for act in acts:
            with pytest.raises(CardNotFound):
                act()


def test_who_sees_one_merchant_neither_makes_nor_leaves_cards_outside_it(make_card, session, bob):
    with pytest.raises(MerchantRequired):
        make_card(bob)
    with pytest.raises(MerchantNotFound):
        make_card(bob, merchant_id=BOREALIS)
    card_id = make_card(bob, merchant_id=AURORA)["id"]
    with pytest.raises(PermissionDenied):
        usecases.assign_card(session, bob, card_id=card_id, merchant_id=None)
    with pytest.raises(MerchantNotFound):
        usecases.assign_card(session, bob, card_id=card_id, merchant_id=BOREALIS)


def test_earlier_holders_are_shown_to_who_sees_them(make_card, session, alice, bob, charlie):
    card_id = make_card(merchant_id=AURORA)["id"]
    usecases.assign_card(session, alice, card_id=card_id, merchant_id=BOREALIS)

    def holders(passport):
        page = queries.list_assignments(session, passport, card_id=card_id, limit=50, cursor=None)
        return [row["merchant_id"] for row in page["items"]]

    assert holders(alice) == [BOREALIS, AURORA]
    assert holders(charlie) == [BOREALIS]
    with pytest.raises(CardNotFound):
        holders(bob)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, [3, 2, 1, 0]),
        ({"status": "active"}, [1]),
        ({"merchant_id": AURORA}, [2]),
        ({"brand": "mastercard"}, [3]),
        ({"currency": "USD"}, [1]),
        ({"last4": "4444"}, [3]),
        ({"q": "4444"}, [3]),
        ({"q": "411111"}, [2, 1, 0]),
        ({"q": "hopper"}, [2]),
        ({"q": "100%"}, [0]),
        ({"q": "100_"}, []),
        ({"status": "active", "currency": "CNY"}, []),
    ],
)
def test_filters_fit_together(make_card, session, alice, filters, found):
    ids = [
        make_card(holder_name="100% Ada")["id"],
        make_card(currency="USD")["id"],
        make_card(holder_name="Grace Hopper", merchant_id=AURORA)["id"],
        make_card(number=MASTERCARD)["id"],
    ]
    usecases.activate_card(session, alice, card_id=ids[1])
    rank = {card_id: place for place, card_id in enumerate(ids)}
    order = sorted(ids, reverse=True)
    assert list_ids(session, alice, **filters) == [i for i in order if rank[i] in found]


def test_a_card_is_found_by_its_id(make_card, session, alice):
    ids = [make_card()["id"] for _ in range(2)]
    assert list_ids(session, alice, q=ids[0]) == [ids[0]]


def test_a_full_number_in_an_address_is_refused_and_not_repeated(session, alice):
    with pytest.raises(NumberInAddress) as refusal:
        list_ids(session, alice, q="4111 1111 1111 1111")
    assert "1111" not in str(refusal.value.to_wire())


def test_search_finds_exactly_this_number_within_the_callers_merchants(make_card, session, alice, bob, charlie, cipher):
    card_id = make_card(number=VISA, merchant_id=AURORA)["id"]

    def search(passport, number):
        return [card["id"] for card in queries.search_card(session, passport, cipher, number=number)["items"]]

    assert search(alice, VISA) == search(bob, "4111-1111-1111-1111") == [card_id]
    assert search(charlie, VISA) == search(alice, MASTERCARD) == []


def test_pages_hold_every_card_once(make_card, session, alice):
    ids = {make_card()["id"] for _ in range(7)}
    seen, cursor = [], None
    while True:
        page = queries.list_cards(session, alice, **NO_FILTER | {"limit": 3, "cursor": cursor})
        seen += [card["id"] for card in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(ids, reverse=True)


@pytest.mark.parametrize("cursor", ["zzz", "WzFd", "W251bGxd", "WyJhIiwiYiJd", encode_cursor(["\x00"])])
def test_a_cursor_of_another_list_is_refused(session, alice, cursor):
    with pytest.raises(InvalidRequest):
        list_ids(session, alice, cursor=cursor)


def test_a_cursor_larger_than_any_number_of_ours_is_refused(make_card, session, alice):
    card_id = make_card()["id"]
    with pytest.raises(InvalidRequest):
        queries.list_assignments(session, alice, card_id=card_id, cursor=encode_cursor([2**63]))
