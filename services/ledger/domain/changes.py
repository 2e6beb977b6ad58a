"""What a balance change must look like before the ledger takes it. Hand-written, since a batch has ten thousand."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.ledger.domain.balance_types import BALANCE_TYPES, BalanceType, OrderNumber
from shared.contracts.ledger import (
    BalanceTypeReserved,
    OrderNumberNotAllowed,
    OrderNumberRequired,
    ReasonRequired,
    UnknownBalanceType,
    WrongSign,
)
from shared.errors import InvalidRequest, PermissionDenied
from shared.money import InvalidMoney, parse_minor

WORD_LENGTH_MAX: Final = 64
TEXT_LENGTH_MAX: Final = 500
AMOUNT_MINOR_MAX: Final = 10**17
ADMIN_PERMISSION: Final = "ledger:admin"

_FIELDS = frozenset({"merchant_id", "user_id", "type", "amount", "currency", "order_no", "channel", "note", "reason"})
_REQUIRED = ("merchant_id", "type", "amount", "currency")
_WORD = re.compile(r"[!-~]{1,64}")
# Control characters, but for tab and line ends, and halves of surrogate pairs.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


@dataclass(slots=True)
class Change:
    """A change that is valid by itself: what it does to a balance is not known yet."""

    merchant_id: str
    holder_type: str
    holder_id: str
    type: BalanceType
    amount: int
    currency: str
    order_no: str | None
    channel: str | None
    note: str | None
    reason: str | None


def check_change(raw: Any, *, is_admin: bool) -> Change:
    """Return the change that a client's JSON object describes.

    is_admin: whether the caller has `ledger:admin`, which the admin types need.
    Raises, in order: InvalidRequest for an unknown, missing or malformed field; UnknownBalanceType;
    BalanceTypeReserved; InvalidMoney; WrongSign; OrderNumberRequired or OrderNumberNotAllowed; PermissionDenied;
    ReasonRequired.
    """
    if type(raw) is not dict:
        raise InvalidRequest("A change is a JSON object.", errors={"change": ["A change is a JSON object."]})
    if not raw.keys() <= _FIELDS:
        raise InvalidRequest("Unknown field.", errors={str(k): ["Unknown field."] for k in raw.keys() - _FIELDS})
    merchant_id, user_id, order_no = raw.get("merchant_id"), raw.get("user_id"), raw.get("order_no")
    code, channel, reason = raw.get("type"), raw.get("channel"), raw.get("reason")
    if (
        type(merchant_id) is not str
        or type(code) is not int
        or type(raw.get("amount")) is not str
        or type(raw.get("currency")) is not str
        or not _WORD.fullmatch(merchant_id)
        or (user_id is not None and not _is_word(user_id))
        or (order_no is not None and not _is_word(order_no))
        or (channel is not None and not _is_word(channel))
    ):
        raise _malformed(raw)
    note = text_of(raw, "note")
    reason = text_of(raw, "reason")
    balance_type = BALANCE_TYPES.get(code)
    if balance_type is None:
        raise UnknownBalanceType.of_field("type", f"There is no balance type {code}.")
    if balance_type.is_reserved:
        raise BalanceTypeReserved.of_field("type", f"Changes of type {code} are posted by the platform itself.")
    amount = parse_minor(raw["amount"], raw["currency"])
    if not -AMOUNT_MINOR_MAX <= amount <= AMOUNT_MINOR_MAX:
        raise InvalidMoney.of_field("amount", "The amount is too large.")
    if not balance_type.sign.takes(amount):
        raise _wrong_sign(balance_type)
    if order_no is None:
        if balance_type.order_number is OrderNumber.REQUIRED:
            raise OrderNumberRequired.of_field("order_no", f"Type {code} needs an order number.")
    elif balance_type.order_number is OrderNumber.NONE:
        raise OrderNumberNotAllowed.of_field("order_no", f"Type {code} takes no order number.")
    if balance_type.is_admin:
        if not is_admin:
            raise PermissionDenied(f"Type {code} needs the permission {ADMIN_PERMISSION}.", missing=ADMIN_PERMISSION)
        if reason is None or not reason.strip():
            raise ReasonRequired.of_field("reason", ReasonRequired.title)
    return Change(
        merchant_id,
        "merchant" if user_id is None else "user",
        merchant_id if user_id is None else user_id,
        balance_type,
        amount,
        raw["currency"],
        order_no,
        channel,
        note,
        reason,
    )


def _is_word(value: Any) -> bool:
    return type(value) is str and _WORD.fullmatch(value) is not None


def text_of(raw: Mapping[str, Any], field: str) -> str | None:
    """Return a field's text, None where it is missing or empty. Raises: InvalidRequest."""
    text = raw.get(field)
    if text is None or text == "":
        return None
    if type(text) is not str:
        raise InvalidRequest.of_field(field, "Must be a string.")
    if len(text) > TEXT_LENGTH_MAX:
        raise InvalidRequest.of_field(field, f"Must have at most {TEXT_LENGTH_MAX} characters.")
    if _UNPRINTABLE.search(text):
        raise InvalidRequest.of_field(field, "Must not contain control characters.")
    return text


def _wrong_sign(balance_type: BalanceType) -> WrongSign:
    wanted = balance_type.sign.value.replace("_", " ") + (
        ", but not zero" if balance_type.sign.value == "either" else ""
    )
    return WrongSign.of_field("amount", f"An amount of type {balance_type.code} is {wanted}.")


def _malformed(raw: Mapping[str, Any]) -> InvalidRequest:
    """Return the error that names every field that is missing or is not what it must be."""
    errors: dict[str, list[str]] = {}
    for field in _REQUIRED:
        if raw.get(field) is None:
            errors[field] = ["Missing data for required field."]
    if "type" not in errors and type(raw["type"]) is not int:
        errors["type"] = ["Must be an integer."]
    if "amount" not in errors and type(raw["amount"]) is not str:
        errors["amount"] = ['Must be a decimal string such as "-12.50".']
    if "currency" not in errors and type(raw["currency"]) is not str:
        errors["currency"] = ["Must be a string."]
    for field in ("merchant_id", "user_id", "order_no", "channel"):
        if field not in errors and raw.get(field) is not None and not _is_word(raw[field]):
            errors[field] = [f"Must be 1 to {WORD_LENGTH_MAX} printable ASCII characters without spaces."]
    return InvalidRequest("The change is malformed.", errors=errors)
