"""Money as integers of minor units with a currency. No float ever enters, and nothing is rounded.

Source: API.md "Money"; ISO 4217 for the number of fraction digits, and USDT with 6.
"""

import re
from dataclasses import dataclass
from functools import cache

from iso4217 import Currency

from shared.errors import InvalidRequest

AMOUNT_MINOR_MAX = 2**63 - 1  # PostgreSQL's bigint
BEYOND_ISO_4217 = {"USDT": 6}
_DECIMAL = re.compile(r"([+-]?)(0|[1-9][0-9]{0,18})(?:\.([0-9]{1,6}))?", re.ASCII)


class InvalidMoney(InvalidRequest):
    """This is not an amount of money in this currency."""


@cache
def _digits_by_currency() -> dict[str, int]:
    """Return the number of fraction digits of each currency that money can be held in."""
    iso = {c.value.upper(): c.exponent for c in Currency if c.exponent is not None}
    return iso | BEYOND_ISO_4217


def currencies() -> list[str]:
    """Return every currency that money can be held in."""
    return sorted(_digits_by_currency())


def fraction_digits(currency: str) -> int:
    """Return how many fraction digits the currency has.

    Raises: InvalidMoney for a currency that is neither in ISO 4217 nor USDT.
    """
    digits = _digits_by_currency().get(currency)
    if digits is None:
        raise InvalidMoney.of_field("currency", f"Unknown currency: {currency[:8]!r}.")
    return digits


def parse_minor(text: str, currency: str) -> int:
    """Return the minor units that a decimal string stands for: ("-12.50", "CNY") is -1250.

    Raises, in order: InvalidMoney for an unknown currency, for anything that is not a plain decimal string, for
    more fraction digits than the currency has, for more than a bigint holds.
    """
    digits = fraction_digits(currency)
    match = _DECIMAL.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InvalidMoney.of_field("amount", 'An amount is a decimal string such as "-12.50".')
    sign, whole, fraction = match.group(1), match.group(2), match.group(3) or ""
    if len(fraction) > digits:
        raise InvalidMoney.of_field("amount", f"{currency} has {digits} fraction digits.")
    minor = int(whole + fraction.ljust(digits, "0"))
    if minor > AMOUNT_MINOR_MAX:
        raise InvalidMoney.of_field("amount", "The amount is too large.")
    return -minor if sign == "-" else minor


def format_minor(minor: int, currency: str) -> str:
    """Return the decimal string of minor units, with all fraction digits: (-1250, "CNY") is "-12.50".

    Zero is "0", as sums and trial balances say it.
    """
    if minor == 0:
        return "0"
    digits = fraction_digits(currency)
    text = str(abs(minor)).rjust(digits + 1, "0")
    whole, fraction = (text[:-digits], text[-digits:]) if digits else (text, "")
    return f"{'-' if minor < 0 else ''}{whole}{'.' if fraction else ''}{fraction}"


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in one currency. Adding two currencies is an error of ours, not of a user."""

    minor: int
    currency: str

    @classmethod
    def parse(cls, text: str, currency: str) -> "Money":
        """Return the money of a decimal string. Raises: InvalidMoney."""
        return cls(parse_minor(text, currency), currency)

    def decimal_string(self) -> str:
        """Return the amount as the API writes it."""
        return format_minor(self.minor, self.currency)

    def __add__(self, other: "Money") -> "Money":
        if self.currency != other.currency:
            raise ValueError(f"cannot add {other.currency} to {self.currency}")
        return Money(self.minor + other.minor, self.currency)

    def __neg__(self) -> "Money":
        return Money(-self.minor, self.currency)
