"""The rules of devices: their states, when one counts as offline, and which rows of a log are taken. Pure."""

import contextlib
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, NoReturn

from shared.masking import mask_text
from shared.times import parse_rfc3339

KEY_LENGTH_MAX: Final = 64
DETAIL_LENGTH_MAX: Final = 500
PAST_MAX: Final = timedelta(days=400)
FUTURE_MAX: Final = timedelta(days=1)  # clocks of devices are wrong, and time zones are forgotten
RESULT_DEFAULT: Final = "success"

_WORD: Final = re.compile(r"[a-z][a-z0-9_.-]{0,39}", re.ASCII)
# Fifteen digits, as no card has but American Express, whose begin with 34 or 37; no IMEI does.
_IMEI: Final = re.compile(r"(?!3[47])[0-9]{15}", re.ASCII)
_CONTROL: Final = re.compile("[\0-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_FIELDS: Final = frozenset({"event_id", "card_id", "action", "result", "ip", "detail", "time"})
_masked: Final = lru_cache(maxsize=4096)(mask_text)  # devices say the same few things again and again


class DeviceStatus(StrEnum):
    """Where a device is: on a card at least, on none, or blocked, on cards or not."""

    BOUND = "bound"
    BLOCKED = "blocked"
    UNBOUND = "unbound"


class Because(StrEnum):
    """Why a binding ended."""

    UNBOUND = "unbound"
    CARD_CLOSED = "card_closed"
    CARD_ASSIGNED = "card_assigned"


@dataclass(frozen=True)
class BindingLimits:
    """How many devices a card, and how many cards a device may be bound to."""

    devices_per_card: int
    cards_per_device: int


@dataclass(frozen=True)
class HeartbeatRule:
    """How often a device is to be heard of, and how much later than that it counts as offline."""

    interval_seconds: int
    grace_seconds: int

    @property
    def interval(self) -> timedelta:
        """Up to this silence a device is online."""
        return timedelta(seconds=self.interval_seconds)

    @property
    def silence_max(self) -> timedelta:
        """Up to this silence it is late, and beyond it offline."""
        return timedelta(seconds=self.interval_seconds + self.grace_seconds)


@dataclass(frozen=True)
class LogRow:
    """A row of a device's log that can be stored."""

    event_id: str
    time: datetime
    card_id: str | None
    action: str
    result: str
    ip: str | None
    detail: str | None


@dataclass(frozen=True)
class RefusedRow:
    """A row that cannot be stored, and why, by field."""

    event_id: str | None
    errors: dict[str, list[str]]


def shows_secret(text: str) -> bool:
    """Return whether a text holds what looks like a card number, a token or a key."""
    return _masked(text) != text


def may_be_shown(key: str) -> bool:
    """Return whether a fingerprint or an event's id can be kept as it is: an IMEI is Luhn-valid by design."""
    is_imei = _IMEI.fullmatch(key) is not None
    return is_imei or not shows_secret(key)


def read_log_row(raw: Any, *, now: datetime, card_ids: frozenset[str]) -> LogRow | RefusedRow:
    """Return what a device sent as a row to store, or what is wrong with it.

    card_ids: the cards that the device is or ever was bound to; of no other may it speak.
    A card number in the detail is masked; in a word it is refused. The event's id is the caller's to hide.
    """
    if not isinstance(raw, Mapping):
        return RefusedRow(None, {"_schema": ["A row is an object."]})
    sent_id = raw.get("event_id")
    name = mask_text(sent_id)[:KEY_LENGTH_MAX] if isinstance(sent_id, str) else None
    if unknown := sorted(set(raw) - _FIELDS):
        return RefusedRow(name, {mask_text(str(field)[:KEY_LENGTH_MAX]): ["Unknown field."] for field in unknown})
    errors: dict[str, list[str]] = {}
    values: dict[str, Any] = {}
    for field, read in (
        ("event_id", _event_id),
        ("time", lambda value: _time(value, now)),
        ("card_id", lambda value: _card_id(value, card_ids)),
        ("action", _word),
        ("result", lambda value: RESULT_DEFAULT if value is None else _word(value)),
        ("ip", _ip),
        ("detail", _detail),
    ):
        try:
            values[field] = read(raw.get(field))
        except ValueError as error:
            errors[field] = [str(error)]
    return RefusedRow(name, errors) if errors else LogRow(**values)


def _event_id(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= KEY_LENGTH_MAX or _CONTROL.search(value):
        raise ValueError(f"The device's own id of the event, a text of 1 to {KEY_LENGTH_MAX} characters.")
    return value


def _time(value: Any, now: datetime) -> datetime:
    try:
        time = parse_rfc3339(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("A time of RFC 3339 with its offset.") from None
    if not now - PAST_MAX <= time <= now + FUTURE_MAX:
        raise ValueError(f"Not older than {PAST_MAX.days} days, and not in the future.")
    return time


def _card_id(value: Any, card_ids: frozenset[str]) -> str | None:
    if value is None or (isinstance(value, str) and value in card_ids):
        return value
    raise ValueError("The device was never bound to such a card.")


def _word(value: Any) -> str:
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise ValueError("A word of small letters, digits and _ . - up to 40 characters.")
    if shows_secret(value):
        raise ValueError("No card number belongs here.")
    return value


def _ip(value: Any) -> str | None:
    if value is None:
        return None
    return _address(value) if isinstance(value, str) else _no_address()


@lru_cache(maxsize=4096)
def _address(text: str) -> str:
    # The zone behind a % may be any text, and any text may be a card number.
    if "%" not in text:
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(text))
    return _no_address()


def _no_address() -> NoReturn:
    raise ValueError("An address of IPv4 or IPv6.")


def _detail(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > DETAIL_LENGTH_MAX:
        raise ValueError(f"A text of up to {DETAIL_LENGTH_MAX} characters.")
    return _masked(_CONTROL.sub("\ufffd", value))
