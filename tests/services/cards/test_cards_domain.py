"""The rules of cards, without a database."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum import luhn

from services.cards.domain import numbers
from services.cards.domain.states import TRANSITIONS, Status, Verb, next_status, require_open
from shared.contracts.cards import (
    CardAlreadyActive,
    CardAlreadyFrozen,
    CardIsClosed,
    CardIsFrozen,
    CardNotActive,
    CardNotFrozen,
    InvalidBin,
    InvalidCardNumber,
)

VISA = "4111111111111111"


@pytest.mark.parametrize(
    ("status", "verb", "after"),
    [
        ("inactive", "activate", "active"),
        ("inactive", "freeze", CardNotActive),
        ("inactive", "unfreeze", CardNotFrozen),
        ("inactive", "close", "closed"),
        ("active", "activate", CardAlreadyActive),
        ("active", "freeze", "frozen"),
        ("active", "unfreeze", CardNotFrozen),
        ("active", "close", "closed"),
        ("frozen", "activate", CardIsFrozen),
        ("frozen", "freeze", CardAlreadyFrozen),
        ("frozen", "unfreeze", "active"),
        ("frozen", "close", "closed"),
        ("closed", "activate", CardIsClosed),
        ("closed", "freeze", CardIsClosed),
        ("closed", "unfreeze", CardIsClosed),
        ("closed", "close", CardIsClosed),
    ],
)
def test_each_verb_in_each_state_moves_or_is_refused(status, verb, after):
    if isinstance(after, str):
        assert next_status(Status(status), Verb(verb)) == after
    else:
        with pytest.raises(after):
            next_status(Status(status), Verb(verb))


def test_the_table_has_an_answer_for_every_state_and_verb():
    assert set(TRANSITIONS) == {(status, verb) for status in Status for verb in Verb}


def test_only_a_closed_card_refuses_other_changes():
    for status in Status:
        if status is Status.CLOSED:
            with pytest.raises(CardIsClosed):
                require_open(status)
        else:
            require_open(status)


@pytest.mark.parametrize("text", [VISA, "4111 1111 1111 1111", "4111-1111-1111-1111"])
def test_spaces_and_hyphens_in_a_number_do_not_matter(text):
    assert numbers.parse_number(text) == VISA


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112",  # wrong check digit
        "1111111117",  # too short, though its check digit fits
        "4" * 20,  # too long
        "4111x11111111111",
        "٤١١١١١١١١١١١١١١١",  # digits, but not ASCII's
        "",
    ],
)
def test_an_invalid_number_is_refused_and_not_repeated(text):
    with pytest.raises(InvalidCardNumber) as refusal:
        numbers.parse_number(text)
    assert not text or text not in str(refusal.value.to_wire())


@pytest.mark.parametrize(
    ("number", "brand"),
    [
        (VISA, "visa"),
        ("5555555555554444", "mastercard"),
        ("2221000000000009", "mastercard"),
        ("2720990000000007", "mastercard"),
        ("2721000000000004", "other"),
        ("378282246310005", "amex"),
        ("6200000000000005", "unionpay"),
        ("3530111333300000", "jcb"),
        ("6011000990139424", "discover"),
        ("30569309025904", "diners"),
        ("9792000000000001", "other"),
    ],
)
def test_brand_follows_from_the_issuer_range(number, brand):
    assert numbers.brand_of(number) == brand


def test_mask_shows_the_first_six_and_the_last_four_digits_only():
    assert numbers.mask(VISA) == "411111******1111"
    assert numbers.mask("378282246310005") == "378282*****0005"


@pytest.mark.parametrize("bin_", ["41111", "411111111", "41111a", "", "041111"])
def test_a_bin_is_six_to_eight_digits(bin_):
    with pytest.raises(InvalidBin):
        numbers.filler_length(bin_)


@given(bin_=st.from_regex(r"[1-9][0-9]{5,7}", fullmatch=True).filter(str.isascii), data=st.data())
def test_a_made_number_is_valid_and_begins_with_its_bin(bin_, data):
    length = numbers.filler_length(bin_)
    filler = data.draw(st.text("0123456789", min_size=length, max_size=length))
    number = numbers.complete_number(bin_, filler)
    assert number.startswith(bin_)
    assert luhn.is_valid(number)
    assert numbers.parse_number(number) == number
    assert len(number) == {"amex": 15, "diners": 14}.get(numbers.brand_of(number), 16)
