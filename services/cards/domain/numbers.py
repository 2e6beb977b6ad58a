"""Card numbers: what is valid, which brand it is, how it is masked, how one is made. Source: ISO/IEC 7812-1."""

import re

from stdnum import luhn

from shared.contracts.cards import InvalidBin, InvalidCardNumber
from shared.errors import InvalidRequest
from shared.masking import CARD_DIGITS_MAX, CARD_DIGITS_MIN

BIN_DIGITS_SHOWN = 6
LAST_DIGITS_SHOWN = 4
NUMBER_DIGITS_MIN = CARD_DIGITS_MIN  # what masking knows as a card's: no shorter number can be held
NUMBER_DIGITS_MAX = CARD_DIGITS_MAX
BIN_DIGITS_MIN, BIN_DIGITS_MAX = 6, 8
_BIN = re.compile(rf"[1-9][0-9]{{{BIN_DIGITS_MIN - 1},{BIN_DIGITS_MAX - 1}}}", re.ASCII)
_DIGITS = re.compile(rf"[0-9]{{{NUMBER_DIGITS_MIN},{NUMBER_DIGITS_MAX}}}", re.ASCII)

BRANDS = ("visa", "mastercard", "amex", "unionpay", "jcb", "discover", "diners", "other")
# Issuer ranges as (first, last, brand) of equally long prefixes; the first match wins.
_RANGES = (
    ("34", "34", "amex"),
    ("37", "37", "amex"),
    ("3528", "3589", "jcb"),
    ("300", "305", "diners"),
    ("36", "36", "diners"),
    ("38", "39", "diners"),
    ("4", "4", "visa"),
    ("51", "55", "mastercard"),
    ("2221", "2720", "mastercard"),
    ("6011", "6011", "discover"),
    ("644", "649", "discover"),
    ("65", "65", "discover"),
    ("62", "62", "unionpay"),
    ("81", "81", "unionpay"),
)
_LENGTHS = {"amex": 15, "diners": 14}
_LENGTH_DEFAULT = 16


def parse_number(text: str) -> str:
    """Return the digits of a card number that a person typed, with or without spaces and hyphens.

    Raises: InvalidCardNumber, which never repeats what was given.
    """
    digits = re.sub(r"[ -]", "", text)
    if not _DIGITS.fullmatch(digits) or not luhn.is_valid(digits):
        raise InvalidCardNumber.of_field("number", "Not a valid card number.")
    return digits


def looks_like_number(text: str) -> bool:
    """Return whether a text is a full, valid card number."""
    try:
        parse_number(text)
    except InvalidCardNumber:
        return False
    return True


def brand_of(number: str) -> str:
    """Return the brand that a number, or its BIN, belongs to; `other` when no range fits."""
    for first, last, brand in _RANGES:
        if first <= number[: len(first)] <= last:
            return brand
    return "other"


def mask(number: str) -> str:
    """Return the number with all digits hidden but the first six and the last four."""
    hidden = len(number) - BIN_DIGITS_SHOWN - LAST_DIGITS_SHOWN
    return f"{number[:BIN_DIGITS_SHOWN]}{'*' * hidden}{number[-LAST_DIGITS_SHOWN:]}"


def parse_bin(bin_: str) -> str:
    """Return a BIN as it is. Raises: InvalidBin."""
    if not _BIN.fullmatch(bin_):
        raise InvalidBin.of_field("bin", InvalidBin.title)
    return bin_


def parse_brand(brand: str) -> str:
    """Return a brand as it is. Raises: InvalidRequest."""
    if brand not in BRANDS:
        raise InvalidRequest.of_field("brand", f"A brand is one of {', '.join(BRANDS)}.")
    return brand


def parse_length(length: int) -> int:
    """Return a number's length as it is. Raises: InvalidRequest."""
    if not NUMBER_DIGITS_MIN <= length <= NUMBER_DIGITS_MAX:
        raise InvalidRequest.of_field("length", f"A number has {NUMBER_DIGITS_MIN} to {NUMBER_DIGITS_MAX} digits.")
    return length


def usual_length(brand: str) -> int:
    """Return how many digits the numbers of a brand have."""
    return _LENGTHS.get(brand, _LENGTH_DEFAULT)


def filler_length(bin_: str, number_length: int | None = None) -> int:
    """Return how many digits stand between a BIN and the check digit; by default in a number of the BIN's brand.

    Raises: InvalidBin.
    """
    length = usual_length(brand_of(parse_bin(bin_))) if number_length is None else number_length
    return length - len(parse_bin(bin_)) - 1


def complete_number(bin_: str, filler: str) -> str:
    """Return the valid number that begins with BIN and filler: its check digit is the only one that fits."""
    body = bin_ + filler
    return body + str(luhn.calc_check_digit(body))
