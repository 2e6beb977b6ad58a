"""Amounts in and out of minor units."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.money import AMOUNT_MINOR_MAX, InvalidMoney, Money, format_minor, fraction_digits, parse_minor

CURRENCIES = st.sampled_from(["CNY", "USD", "JPY", "KWD", "USDT"])


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("-12.50", "CNY", -1250),
        ("12.5", "CNY", 1250),
        ("+3", "JPY", 3),
        ("0.000001", "USDT", 1),
        ("1.234", "KWD", 1234),
        ("0", "CNY", 0),
        ("-0.00", "CNY", 0),
    ],
)
def test_decimal_strings_become_minor_units(text: str, currency: str, minor: int) -> None:
    assert parse_minor(text, currency) == minor


@pytest.mark.parametrize(
    "text", ["", "1,5", "1e3", "NaN", "Infinity", "0x10", "01", ".5", "5.", "--1", " 1", "1 ", "١", "1\n"]
)
def test_what_is_no_plain_decimal_string_is_refused(text: str) -> None:
    with pytest.raises(InvalidMoney):
        parse_minor(text, "CNY")


@pytest.mark.parametrize("value", [12.5, 12, True, None, ["1"]])
def test_what_is_no_string_is_refused(value: object) -> None:
    with pytest.raises(InvalidMoney):
        parse_minor(value, "CNY")  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "currency"), [("1.001", "CNY"), ("1.0", "JPY"), ("0.0000001", "USDT")])
def test_more_fraction_digits_than_the_currency_has_are_refused(text: str, currency: str) -> None:
    with pytest.raises(InvalidMoney):
        parse_minor(text, currency)


def test_an_unknown_currency_is_refused() -> None:
    for currency in ("XYZ", "cny", "", "USDTT"):
        with pytest.raises(InvalidMoney) as refusal:
            fraction_digits(currency)
        assert "currency" in (refusal.value.errors or {})


def test_more_than_a_bigint_is_refused() -> None:
    assert parse_minor(format_minor(AMOUNT_MINOR_MAX, "JPY"), "JPY") == AMOUNT_MINOR_MAX
    with pytest.raises(InvalidMoney):
        parse_minor(str(AMOUNT_MINOR_MAX + 1), "JPY")


@given(st.integers(-AMOUNT_MINOR_MAX, AMOUNT_MINOR_MAX), CURRENCIES)
def test_every_amount_survives_the_way_out_and_in(minor: int, currency: str) -> None:
    assert parse_minor(format_minor(minor, currency), currency) == minor


def test_two_currencies_do_not_add_up() -> None:
    assert Money(1, "CNY") + Money(2, "CNY") == Money(3, "CNY")
    with pytest.raises(ValueError, match="cannot add"):
        Money(1, "CNY") + Money(1, "USD")
