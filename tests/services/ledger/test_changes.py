"""What a change must look like: each rule with what breaks it."""

from typing import Any

import pytest

from services.ledger.domain.balance_types import BALANCE_TYPES
from services.ledger.domain.changes import check_change
from shared.contracts.ledger import (
    BalanceTypeReserved,
    OrderNumberNotAllowed,
    OrderNumberRequired,
    ReasonRequired,
    UnknownBalanceType,
    WrongSign,
)
from shared.errors import InvalidRequest, PermissionDenied, ServiceError
from shared.money import InvalidMoney
from tests.services.ledger.conftest import AURORA, change, raw_change

TO_POST = [code for code, t in BALANCE_TYPES.items() if not t.is_reserved]


def refusal(raw: Any, *, is_admin: bool = True) -> ServiceError:
    """Return why a change is refused."""
    with pytest.raises(ServiceError) as caught:
        check_change(raw, is_admin=is_admin)
    return caught.value


def test_change_is_taken_as_minor_units() -> None:
    checked = change(amount="12.5", note="hello", channel="alipay")
    assert (checked.amount, checked.currency, checked.type.code) == (1250, "CNY", 321)
    assert (checked.holder_type, checked.holder_id, checked.merchant_id) == ("user", "user-1", AURORA)
    assert (checked.note, checked.channel, checked.reason) == ("hello", "alipay", None)


def test_change_without_user_is_the_merchants_own() -> None:
    assert (change(user_id=None).holder_type, change(user_id=None).holder_id) == ("merchant", AURORA)


@pytest.mark.parametrize(
    ("fields", "blamed"),
    [
        ({"merchant_id": None}, "merchant_id"),
        ({"merchant_id": ""}, "merchant_id"),
        ({"merchant_id": 7}, "merchant_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": 17}, "user_id"),
        ({"user_id": "a b"}, "user_id"),
        ({"user_id": "a\x1fb"}, "user_id"),
        ({"user_id": "x" * 65}, "user_id"),
        ({"type": None}, "type"),
        ({"type": "321"}, "type"),
        ({"type": 321.0}, "type"),
        ({"type": True}, "type"),
        ({"amount": None}, "amount"),
        ({"amount": 12.5}, "amount"),
        ({"amount": 12}, "amount"),
        ({"currency": None}, "currency"),
        ({"currency": 156}, "currency"),
        ({"order_no": "P 1"}, "order_no"),
        ({"channel": "a\nb"}, "channel"),
        ({"note": 1}, "note"),
        ({"note": "x" * 501}, "note"),
        ({"note": "a\x00b"}, "note"),
        ({"note": "a\x1fb"}, "note"),
        ({"note": "\ud800"}, "note"),
        ({"reason": ["x"]}, "reason"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_malformed_field_is_blamed(fields: dict[str, Any], blamed: str) -> None:
    error = refusal(raw_change(**fields))
    assert type(error) is InvalidRequest
    assert error.errors is not None
    assert list(error.errors) == [blamed]


@pytest.mark.parametrize("raw", [None, [], "x", 1])
def test_change_that_is_no_object_is_refused(raw: Any) -> None:
    assert type(refusal(raw)) is InvalidRequest


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        ("1.005", "CNY"),
        ("1.5", "JPY"),
        ("1.0000001", "USDT"),
        ("1e3", "CNY"),
        ("１２", "CNY"),
        ("", "CNY"),
        ("1_000", "CNY"),
        (" 1", "CNY"),
        ("NaN", "CNY"),
        ("1.00", "XXQ"),
        ("1.00", "cny"),
        ("1" * 16, "CNY"),
        ("1" * 18, "CNY"),
    ],
)
def test_what_is_no_money_in_its_currency_is_refused(amount: str, currency: str) -> None:
    assert type(refusal(raw_change(amount=amount, currency=currency))) is InvalidMoney


@pytest.mark.parametrize("code", [234, 336, 0, -321, 513, 10**9])
def test_unknown_code_is_refused(code: int) -> None:
    assert type(refusal(raw_change(type=code))) is UnknownBalanceType


@pytest.mark.parametrize("code", [code for code, t in BALANCE_TYPES.items() if t.is_reserved])
def test_reserved_code_is_posted_by_nobody_who_names_it(code: int) -> None:
    assert type(refusal(raw_change(type=code, order_no=None))) is BalanceTypeReserved


@pytest.mark.parametrize("code", TO_POST)
@pytest.mark.parametrize("amount", ["-1.00", "0.00", "1.00"])
def test_wrong_sign_is_refused_for_every_type(code: int, amount: str) -> None:
    balance_type = BALANCE_TYPES[code]
    raw = raw_change(type=code, amount=amount, reason="a reason")
    if balance_type.order_number.value == "none":
        del raw["order_no"]
    if balance_type.sign.takes(round(float(amount))):
        assert check_change(raw, is_admin=True).type is balance_type
    else:
        assert type(refusal(raw)) is WrongSign


@pytest.mark.parametrize("code", TO_POST)
def test_order_number_is_as_the_type_wants_it(code: int) -> None:
    balance_type = BALANCE_TYPES[code]
    amount = {"positive": "1", "negative": "-1", "zero": "0", "zero_or_negative": "0", "either": "1"}
    raw = raw_change(type=code, amount=amount[balance_type.sign.value], reason="a reason", order_no="P1")
    without = {name: value for name, value in raw.items() if name != "order_no"}
    match balance_type.order_number.value:
        case "required":
            assert check_change(raw, is_admin=True).order_no == "P1"
            assert type(refusal(without)) is OrderNumberRequired
        case "optional":
            assert check_change(raw, is_admin=True).order_no == "P1"
            assert check_change(without, is_admin=True).order_no is None
        case "none":
            assert type(refusal(raw)) is OrderNumberNotAllowed
            assert check_change(without, is_admin=True).order_no is None


@pytest.mark.parametrize(("code", "amount"), [(326, "1"), (335, "-1"), (341, "1"), (342, "-1")])
def test_admin_types_need_permission_and_reason(code: int, amount: str) -> None:
    raw = raw_change(type=code, amount=amount)
    assert type(refusal(raw)) is ReasonRequired
    assert type(refusal(raw | {"reason": ""})) is ReasonRequired
    assert type(refusal(raw | {"reason": " \n"})) is ReasonRequired
    denied = refusal(raw | {"reason": "because"}, is_admin=False)
    assert type(denied) is PermissionDenied
    assert denied.extra == {"missing": "ledger:admin"}
    assert check_change(raw | {"reason": "because"}, is_admin=True).reason == "because"
