"""What is secret in a text, decided in this one place: card numbers, tokens, keys. Pure.

Logs, events and notifications mask what is found (`mask`, `mask_text`, `mask_typed`); the gateway refuses to take it
(`secret_in`). An order's number or a device's id is somebody else's number: one in ten long ones looks like a card's,
and all are taken and left as they are. Source: RELIABILITY.md R30, R31; decision 0018.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache, wraps
from typing import Any, Literal

from stdnum import luhn

MASK = "***"
CARD_DIGITS_MIN, CARD_DIGITS_MAX = 13, 19
# Nothing shorter than a card number is secret by its looks: nearly all texts are passed over by their length.
TEXT_LENGTH_MIN = CARD_DIGITS_MIN
_NO_TEXTS = frozenset({int, bool, float, type(None)})
NAMES_REMEMBERED = 1024
NAME_LENGTH_MAX = 64

Secret = Literal["card_number", "token"]

_SECRET_NAMES = re.compile(
    r"(?i)passw|secret|token|otp|authorization|cookie|api_?key|private_?key|card_?number|(^|_)pan($|_)|recovery_code|cvv"
)
# Numbers that other systems gave: taken as they are. A device's id may be an IMEI, which is Luhn-valid by design.
_FOREIGN_NAMES = re.compile(r"(^|_)(no|nos|ref|refs|fingerprint|imei)$|^(user|holder|device|event|chat|external)_ids?$")
_REFERENCE_NAMES = re.compile(
    r"(^|_)(id|ids|no|nos|ref|refs|hash|sha256|digest|fingerprint|amount|balance|currency|time|at)$"
)
# What nobody types but by mistake.
_TOKENS = (
    re.compile(r"eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]{5,}"),  # JSON web tokens
    re.compile(r"\b\d{6,12}:[\w-]{30,}"),  # a Telegram bot's token
    re.compile(r"\bch[kr]_[\w-]{8,}"),  # our API keys and refresh tokens
    re.compile(r"otpauth://\S+"),
)
# What may stand in a text for good reason, and still belongs into no log.
_CREDENTIALS = (
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),  # user and password in an address
    re.compile(r"(?i)(?<=bearer )[\w.~+/=-]{16,}"),
)
# A cheap look tells that nearly all texts hold none of these.
_LONG_DIGITS = re.compile(r"[\d\s\u2010-\u2015-]{13}")
# Digits with at most one blank or dash between them. What has a decimal point is an amount.
_DIGITS = re.compile(r"(?<!\d)(?<!\d\.)\d(?:[\s\u2010-\u2015-]?\d){12,}(?!\.?\d)")
_GROUP = re.compile(r"\d+")
# No card begins like a date or a clock's count of seconds; orders and tickets do.
_LIKE_A_DATE = ("0", "1", "20")


def mask_text(text: str) -> str:
    """Return the text with tokens, keys, passwords in addresses and card numbers masked."""
    if not _is_suspicious(text):
        return text
    for pattern in (*_TOKENS, *_CREDENTIALS):
        text = pattern.sub(MASK, text)
    return _DIGITS.sub(_masked_digits, text)


def mask(value: Any, key: str = "") -> Any:
    """Return the value with everything secret in it masked, by the name of its key or by its looks."""
    if key and is_secret(key) and value not in (None, "", True, False):
        return MASK
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, dict):
        return {k: mask(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [mask(v) for v in value]
    return value


def mask_typed(value: Any, key: str = "") -> Any:
    """Return JSON with what people may have typed masked by its looks; references, by their names, stay.

    An object in which there is nothing to mask is returned as it is, and not copied.
    """
    if isinstance(value, str):
        return value if len(value) < TEXT_LENGTH_MIN or is_reference(key) else mask_text(value)
    if isinstance(value, dict):
        masked = {}
        for name, part in value.items():
            if len(part) >= TEXT_LENGTH_MIN if type(part) is str else type(part) not in _NO_TEXTS:
                typed = mask_typed(part, name)
                if typed is not part:
                    masked[name] = typed
        return value | masked if masked else value
    if isinstance(value, list | tuple):
        return [mask_typed(v, key) for v in value]
    return value


def secret_in(value: Any, key: str = "") -> Secret | None:
    """Return what secret stands in JSON that somebody sent, None for none.

    A number in the place of one that another system gave is no card's, and a token under a secret's name is in place.
    """
    if isinstance(value, str):
        return _secret_in_text(value, key) if len(value) >= TEXT_LENGTH_MIN else None
    if isinstance(value, dict):
        for name, part in value.items():
            is_looked_at = len(part) >= TEXT_LENGTH_MIN if type(part) is str else type(part) not in _NO_TEXTS
            if is_looked_at and (found := secret_in(part, name)):
                return found
            if len(name) >= TEXT_LENGTH_MIN and (found := _secret_in_text(name)):
                return found
        return None
    if isinstance(value, list | tuple):
        for part in value:
            if found := secret_in(part, key):
                return found
    return None


def _remembered(is_named: Callable[[str], bool]) -> Callable[[str], bool]:
    """Remember what is said of the usual names. Clients can make up any number of others, of any length."""
    known = lru_cache(NAMES_REMEMBERED)(is_named)
    return wraps(is_named)(lambda key: known(key) if len(key) <= NAME_LENGTH_MAX else is_named(key))


@_remembered
def is_foreign(key: str) -> bool:
    """Return whether a field of this name holds a number that another system gave."""
    return _FOREIGN_NAMES.search(key) is not None


@_remembered
def is_reference(key: str) -> bool:
    """Return whether a field of this name holds an id, a number that another system gave, or an amount."""
    return _REFERENCE_NAMES.search(key) is not None


@_remembered
def is_secret(key: str) -> bool:
    """Return whether a field of this name is where a secret belongs: a password, a code, a token."""
    return _SECRET_NAMES.search(key) is not None


def _secret_in_text(text: str, key: str = "") -> Secret | None:
    if _may_hold_token(text) and any(token.search(text) for token in _TOKENS) and not is_secret(key):
        return "token"
    # First the name: most long numbers are other systems'.
    return "card_number" if not is_foreign(key) and _has_card_number(text) else None


def _is_suspicious(text: str) -> bool:
    return _may_hold_token(text) or "earer " in text.lower() or _LONG_DIGITS.search(text) is not None


def _may_hold_token(text: str) -> bool:
    return ":" in text or "eyJ" in text or "chk_" in text or "chr_" in text


def _has_card_number(text: str) -> bool:
    if _LONG_DIGITS.search(text) is None:
        return False
    runs = (match.group() for match in _DIGITS.finditer(text))
    return any(not _is_like_a_date(run[start:end]) for run in runs for start, end in _card_numbers(run))


def _masked_digits(match: re.Match[str]) -> str:
    run, masked, done = match.group(), "", 0
    for start, end in _card_numbers(run):
        if start >= done:
            masked += f"{run[done:start]}{MASK}{run[end - 4 : end]}"
            done = end
    return masked + run[done:]


def _card_numbers(run: str) -> Iterator[tuple[int, int]]:
    """Yield where valid card numbers stand in a run of digits: whole groups, as in `4111 1111 1111 1111 12/29`."""
    groups = [match.span() for match in _GROUP.finditer(run)]
    for first, (start, _) in enumerate(groups):
        for last in range(first, len(groups)):
            end = groups[last][1]
            digits = "".join(str(int(digit)) for digit in run[start:end] if digit.isdigit())
            if len(digits) > CARD_DIGITS_MAX:
                break
            is_apart = last > first and _is_like_a_date(digits)
            if len(digits) >= CARD_DIGITS_MIN and not is_apart and luhn.is_valid(digits):
                yield start, end


def _is_like_a_date(digits: str) -> bool:
    return digits.startswith(_LIKE_A_DATE)
