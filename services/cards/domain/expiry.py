"""The last month in which a card is good."""

import re
from datetime import date

from shared.contracts.cards import InvalidExpiry

LIFETIME_YEARS = 3
_MONTH = re.compile(r"(20[0-9]{2})-(0[1-9]|1[0-2])", re.ASCII)
_PRINTED = re.compile(r"(0[1-9]|1[0-2])/([0-9]{2})", re.ASCII)


def parse_expiry(text: str) -> str:
    """Return an expiry as YYYY-MM, given so or as cards print it: MM/YY. Raises: InvalidExpiry."""
    if _MONTH.fullmatch(text):
        return text
    printed = _PRINTED.fullmatch(text)
    if printed is None:
        raise InvalidExpiry.of_field("expiry", InvalidExpiry.title)
    return f"20{printed.group(2)}-{printed.group(1)}"


def default_expiry(today: date) -> str:
    """Return the expiry of a card that is made today and says nothing else."""
    return f"{today.year + LIFETIME_YEARS}-{today.month:02}"
