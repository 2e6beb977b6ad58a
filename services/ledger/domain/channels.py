"""What a channel's configuration may say, field by field, and which fields are secrets."""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo, available_timezones

from shared.addresses import AddressRefused, place_of
from shared.contracts.channels import CHANNEL_KINDS, InvalidChannelConfig
from shared.errors import InvalidRequest
from shared.money import fraction_digits

RECORD_FIELDS: Final = ("upstream_ref", "order_no", "amount", "fee", "currency", "status", "time")
RECORD_STATUSES: Final = ("pending", "success", "failed", "refunded")
CALLBACK_SECRETS: Final = "callback_secrets"
QUERY_SECRET: Final = "query_secret"  # noqa: S105  # the name of a field
API_KEY: Final = "api_key"
ASKABLE_KINDS: Final = frozenset({"http", "stripe"})
CALLBACK_SECRETS_MAX: Final = 3
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64
WORDS_MAX: Final = 50
DELIMITERS: Final = (",", ";", "\t", "|")

_CODE = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_DATE_FORMAT = re.compile(r"(?:%[YymdHMSfzbBIpjT]|[^%\x00-\x1f]){1,60}")
_PERCENT = re.compile(r"(0|[1-9][0-9]{0,2})(\.[0-9]{1,4})?")
_STRIPE_KEY = re.compile(r"[!-~]{8,255}")
_WHSEC: Final = "whsec_"
_STRIPE_SECRET = re.compile(r"whsec_[A-Za-z0-9]{24,190}")

# What a channel of each kind needs, secrets among it. Callbacks need `callback_secrets` whatever the kind is.
_REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "statement": (),
    "http": ("base_url", QUERY_SECRET),
    "stripe": (API_KEY,),
}
_OF_KIND: Final = {"base_url": "http", QUERY_SECRET: "http", API_KEY: "stripe"}
SECRETS: Final = frozenset({CALLBACK_SECRETS, QUERY_SECRET, API_KEY})


def check_code(code: Any) -> str:
    """Return a channel's code. Raises: InvalidRequest."""
    if type(code) is not str or not _CODE.fullmatch(code):
        raise InvalidRequest.of_field(
            "code", "Must be 1 to 32 lower case letters, digits, _ or - and begin with a letter or digit."
        )
    return code


def check_name(name: Any) -> str:
    """Return a channel's name. Raises: InvalidRequest."""
    if type(name) is not str or not name.strip() or len(name) > 100 or not name.isprintable():
        raise InvalidRequest.of_field("name", "Must have 1 to 100 printable characters.")
    return name


def check_kind(kind: Any) -> str:
    """Return a channel's kind. Raises: InvalidRequest."""
    if kind not in CHANNEL_KINDS:
        raise InvalidRequest.of_field("kind", f"Must be one of {', '.join(CHANNEL_KINDS)}.")
    return str(kind)


def merge_config(before: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with some fields put differently; null takes one out."""
    return {name: value for name, value in {**before, **change}.items() if value is not None}


def check_config(
    kind: str, config: Mapping[str, Any], *, allowed: frozenset[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a configuration says openly, and its secrets.

    allowed: the places beside public ones that may be called.
    Raises: InvalidChannelConfig, which names each field.
    """
    errors: dict[str, list[str]] = {}
    for name in _REQUIRED[kind]:
        if config.get(name) is None:
            errors[f"config.{name}"] = [f"A channel of kind {kind} needs it."]
    for name, value in config.items():
        check = _CHECKS.get(name)
        if check is None or _OF_KIND.get(name, kind) != kind:
            errors[f"config.{name}"] = [f"A channel of kind {kind} has no such field."]
            continue
        if value is None:
            continue
        try:
            if name == "base_url":
                place_of(_text(value), allowed)
            elif name == CALLBACK_SECRETS:
                _check_callback_secrets(value, _check_stripe_secret if kind == "stripe" else _check_secret)
            else:
                check(value)
        except AddressRefused as refused:
            errors[f"config.{name}"] = [str(refused)]
        except ValueError as refused:
            errors[f"config.{name}"] = [str(refused)]
    if errors:
        field, messages = next(iter(errors.items()))
        raise InvalidChannelConfig(f"{field}: {messages[0]}", errors=errors)
    kept = {name: value for name, value in config.items() if value is not None}
    openly = {name: value for name, value in kept.items() if name not in SECRETS}
    return openly, {name: value for name, value in kept.items() if name in SECRETS}


def fee_of(amount: int, percent: Decimal) -> int:
    """Return the fee of an amount in minor units: a percentage of it, half a unit rounded up."""
    return int((amount * percent / 100).quantize(Decimal(1), rounding="ROUND_HALF_UP"))


def check_fee_percent(text: Any) -> Decimal:
    """Return a percentage of 0 to 100 with at most four fraction digits. Raises: ValueError."""
    is_decimal = _PERCENT.fullmatch(_text(text)) is not None
    percent = Decimal(text) if is_decimal else Decimal(-1)
    if not 0 <= percent <= 100:
        raise ValueError('Must be a decimal string from "0" to "100" with at most four fraction digits.')
    return percent


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("Must be a string.")
    return value


def _check_callback_secrets(value: Any, check: Callable[[Any], None]) -> None:
    if type(value) is not list or not 1 <= len(value) <= CALLBACK_SECRETS_MAX:
        raise ValueError(f"Must be a list of 1 to {CALLBACK_SECRETS_MAX} secrets.")
    for secret in value:
        check(secret)


def _check_stripe_secret(value: Any) -> None:
    """Take a secret as Stripe makes them, which is no base64, or as Standard Webhooks writes it."""
    if not _STRIPE_SECRET.fullmatch(_text(value)):
        _check_secret(value)


def _check_secret(value: Any) -> None:
    """Take a secret as Standard Webhooks writes it: `whsec_` and 24 to 64 random bytes in base64."""
    wrong = ValueError(f"A secret is {_WHSEC} and {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes in base64.")
    if not _text(value).startswith(_WHSEC):
        raise wrong
    try:
        decoded = base64.b64decode(value.removeprefix(_WHSEC), validate=True)
    except (binascii.Error, ValueError):
        raise wrong from None
    if not SECRET_BYTES_MIN <= len(decoded) <= SECRET_BYTES_MAX:
        raise wrong


def _check_api_key(value: Any) -> None:
    if not _STRIPE_KEY.fullmatch(_text(value)):
        raise ValueError("Must be 8 to 255 printable ASCII characters without spaces.")


def _check_columns(value: Any) -> None:
    if type(value) is not dict or not value or not value.keys() <= set(RECORD_FIELDS):
        raise ValueError(f"Must lead from some of {', '.join(RECORD_FIELDS)} to the names of the platform's columns.")
    names = [_text(name) for name in value.values()]
    if any(not name.strip() or len(name) > 100 or not name.isprintable() for name in names):
        raise ValueError("A column has a name of 1 to 100 printable characters.")
    # A field that is not named here is read from the column of its own name.
    known = [name.strip().casefold() for name in ({name: name for name in RECORD_FIELDS} | value).values()]
    if twice := next((name for name in known if known.count(name) > 1), None):
        raise ValueError(f"Each field has a column of its own; two would be read from {twice!r}.")


def _check_statuses(value: Any) -> None:
    if type(value) is not dict or not 1 <= len(value) <= WORDS_MAX:
        raise ValueError("Must lead from 1 to 50 words of the platform to statuses.")
    if any(not word.strip() or len(word) > 100 or not word.isprintable() for word in value):
        raise ValueError("A word has 1 to 100 printable characters.")
    if not set(value.values()) <= set(RECORD_STATUSES):
        raise ValueError(f"A status is one of {', '.join(RECORD_STATUSES)}.")
    if len({word.strip().lower() for word in value}) != len(value):
        raise ValueError("A word means one status, in upper or lower case.")


def _check_date_format(value: Any) -> None:
    wrong = ValueError("Must be a format such as %Y-%m-%d %H:%M:%S that names year, month and day.")
    if not _DATE_FORMAT.fullmatch(_text(value)):
        raise wrong
    sample = datetime(2026, 11, 22, 21, 30, tzinfo=UTC)
    try:
        read = datetime.strptime(sample.strftime(value), value)
    except ValueError:
        raise wrong from None
    if read.date() != sample.date():
        raise wrong
    if read.hour not in (0, sample.hour):
        raise ValueError("An hour of twelve (%I) needs %p, which says of which half of the day it is.")


def _check_timezone(value: Any) -> None:
    if _text(value) not in available_timezones():
        raise ValueError("Must be a time zone of IANA, such as Asia/Shanghai.")
    ZoneInfo(value)


def _check_currency(value: Any) -> None:
    try:
        fraction_digits(_text(value))
    except InvalidRequest as refused:
        raise ValueError(refused.detail) from None


def _one_of(*words: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if value not in words:
            raise ValueError(f"Must be one of {', '.join(repr(word) for word in words)}.")

    return check


_CHECKS: Final[dict[str, Callable[[Any], object]]] = {
    "base_url": _text,
    CALLBACK_SECRETS: lambda value: value,
    QUERY_SECRET: _check_secret,
    API_KEY: _check_api_key,
    "fee_percent": check_fee_percent,
    "currency": _check_currency,
    "timezone": _check_timezone,
    "columns": _check_columns,
    "statuses": _check_statuses,
    "delimiter": _one_of(*DELIMITERS),
    "date_format": _check_date_format,
    "decimal_sign": _one_of(".", ","),
}
