"""BIN ranges on a real database: who registers them, and how they govern the making of cards."""

import pytest

from services.cards import usecases
from services.cards.bins import queries
from services.cards.bins.usecases import create_bin, update_bin
from services.cards.cipher import NumberCipher
from shared.contracts.bins import BinDisabled, BinNotFound, BinReserved, BinTaken
from shared.contracts.cards import BinExhausted, InvalidBin
from shared.contracts.users import MerchantNotFound
from shared.errors import InvalidRequest, PermissionDenied
from tests.conftest import AURORA, BOREALIS, person

BIN = "622848"


@pytest.fixture
def reveal(session, alice, cipher: NumberCipher):
    return lambda card: usecases.reveal_card(session, alice, cipher, card_id=card["id"], reason="x")["number"]


def test_range_has_what_its_first_digits_say_unless_told_otherwise(session, alice, told) -> None:
    amex = create_bin(session, alice, bin="371234")
    assert (amex["brand"], amex["length"], amex["status"], amex["merchant_id"]) == ("amex", 15, "active", None)
    own = create_bin(session, alice, bin=BIN, brand="other", length=19, merchant_id=AURORA)
    assert (own["brand"], own["length"], own["merchant_id"]) == ("other", 19, AURORA)
    assert [(name, e["resource_id"]) for name, e in told()] == [("BinCreated", "371234"), ("BinCreated", BIN)]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"bin": "41111"}, InvalidBin),
        ({"bin": "411111111"}, InvalidBin),
        ({"bin": BIN, "brand": "bank of x"}, InvalidRequest),
        ({"bin": BIN, "length": 12}, InvalidRequest),
        ({"bin": BIN, "length": 20}, InvalidRequest),
        ({"bin": BIN, "merchant_id": BOREALIS}, MerchantNotFound),
        ({"bin": BIN, "merchant_id": None}, PermissionDenied),
    ],
)
def test_bad_range_is_refused(session, fields, error) -> None:
    zoe = person("Zoe", "administrator", frozenset({AURORA}))
    with pytest.raises(error):
        create_bin(session, zoe, **{"merchant_id": AURORA} | fields)


def test_bin_is_registered_once(session, alice) -> None:
    create_bin(session, alice, bin=BIN)
    with pytest.raises(BinTaken):
        create_bin(session, alice, bin=BIN)


def test_made_number_has_the_length_and_brand_of_its_range(session, alice, make_card, reveal) -> None:
    create_bin(session, alice, bin=BIN, brand="other", length=19)
    card = make_card(bin=BIN)
    number = reveal(card)
    assert (len(number), number[:6], card["brand"]) == (19, BIN, "other")


def test_given_number_has_the_brand_of_the_longest_range_that_it_begins_with(session, alice, make_card) -> None:
    assert make_card(number="6228480000000007")["brand"] == "unionpay"
    create_bin(session, alice, bin=BIN, brand="other")
    create_bin(session, alice, bin=f"{BIN}12", brand="visa")
    assert make_card(number="6228480000000015")["brand"] == "other"
    assert make_card(number="6228481200000003")["brand"] == "visa"


def test_no_card_is_made_under_a_disabled_bin_or_a_longer_one_within(session, alice, make_card, told) -> None:
    create_bin(session, alice, bin=BIN)
    update_bin(session, alice, bin=BIN, status="disabled")
    for bin_ in (BIN, f"{BIN}12"):
        with pytest.raises(BinDisabled):
            make_card(bin=bin_)
    assert told()[-1][1]["payload"]["changes"] == {"status": {"before": "active", "after": "disabled"}}
    update_bin(session, alice, bin=BIN, status="active")
    assert make_card(bin=BIN)["bin"] == BIN


def test_merchants_bin_makes_cards_for_that_merchant_only(session, alice, bob, charlie, make_card) -> None:
    create_bin(session, alice, bin=BIN, merchant_id=AURORA)
    assert make_card(bob, bin=BIN, merchant_id=AURORA)["merchant_id"] == AURORA
    with pytest.raises(BinReserved):
        make_card(charlie, bin=BIN, merchant_id=BOREALIS)
    with pytest.raises(BinReserved):
        make_card(alice, bin=BIN)


def test_small_range_is_used_up_to_its_last_number(session, alice, make_card, reveal, monkeypatch) -> None:
    """A hundred numbers, all made: by chance alone the last ones would not be found."""
    monkeypatch.setattr("services.cards.domain.numbers.filler_length", lambda bin_, length: 2)
    create_bin(session, alice, bin=BIN)
    made = {reveal(make_card(bin=BIN)) for _ in range(100)}
    assert len(made) == 100
    with pytest.raises(BinExhausted):
        make_card(bin=BIN)


def test_number_under_a_longer_bin_is_not_made_under_the_shorter_one(session, alice, make_card, reveal) -> None:
    for last in range(9):
        create_bin(session, alice, bin=f"{BIN}{last}", length=13, merchant_id=BOREALIS)
    create_bin(session, alice, bin=BIN, length=13)
    assert {reveal(make_card(bin=BIN))[6] for _ in range(10)} == {"9"}


def test_ranges_are_listed_latest_first_and_cut_to_the_callers_merchants(session, alice, bob, charlie) -> None:
    create_bin(session, alice, bin=BIN)
    create_bin(session, alice, bin="371234", merchant_id=AURORA)
    bins = lambda who, **filters: [b["bin"] for b in queries.list_bins(session, who, **filters)["items"]]  # noqa: E731
    assert bins(alice) == bins(bob) == ["371234", BIN]
    assert bins(charlie) == [BIN]
    assert bins(alice, brand="amex") == bins(alice, merchant_id=AURORA) == ["371234"]
    first = queries.list_bins(session, alice, limit=1)
    assert bins(alice, cursor=first["next_cursor"]) == [BIN]


def test_range_outside_the_callers_merchants_does_not_exist_for_them(session, alice) -> None:
    create_bin(session, alice, bin=BIN, merchant_id=AURORA)
    create_bin(session, alice, bin="371234")
    zoe = person("Zoe", "administrator", frozenset({BOREALIS}))
    with pytest.raises(BinNotFound):
        update_bin(session, zoe, bin=BIN, status="disabled")
    with pytest.raises(PermissionDenied):
        update_bin(session, zoe, bin="371234", status="disabled")
