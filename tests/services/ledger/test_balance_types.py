"""The registry says what FEATURES.md says."""

import pytest

from services.ledger.domain.balance_types import BALANCE_TYPES, OrderNumber, Sign, codes_of, label
from shared.contracts.ledger import ADMIN_TYPES, UnknownBalanceType

# FEATURES.md "Balance types", row by row.
TABLE = [
    (231, "Traffic Reset", "Auto Reset", "zero", "none", None),
    (232, "Traffic Reset", "Advance Reset", "zero_or_negative", "optional", "revenue:resets"),
    (233, "Traffic Reset", "Paid Reset", "zero_or_negative", "required", "revenue:resets"),
    (321, "Recharge/Withdrawal", "Recharge", "positive", "required", "channel_clearing"),
    (322, "Recharge/Withdrawal", "Withdraw", "negative", "required", "payout_clearing"),
    (323, "Recharge/Withdrawal", "Payment", "negative", "required", "revenue:orders"),
    (324, "Recharge/Withdrawal", "Refund", "positive", "required", "revenue:refunds"),
    (325, "Recharge/Withdrawal", "Reward", "positive", "optional", "expense:rewards"),
    (326, "Recharge/Withdrawal", "Admin Adjust", "either", "optional", "adjustments"),
    (331, "Purchase", "Purchase", "negative", "required", "revenue:plans"),
    (332, "Purchase", "Renewal", "negative", "required", "revenue:plans"),
    (333, "Purchase", "Refund", "positive", "required", "revenue:refunds"),
    (334, "Purchase", "Withdraw", "negative", "optional", "payout_clearing"),
    (335, "Purchase", "Admin Adjust", "either", "optional", "adjustments"),
    (341, "Adjustment", "Increase", "positive", "optional", "adjustments"),
    (342, "Adjustment", "Reduce", "negative", "optional", "adjustments"),
    (511, "Platform", "Card Top-up", "either", "none", "card_transfers"),
    (512, "Platform", "Card Withdrawal", "either", "none", "card_transfers"),
    (521, "Platform", "Fee charged", "negative", "required", "revenue:fees"),
]


def test_registry_is_the_table() -> None:
    assert [
        (t.code, t.group, t.name, t.sign.value, t.order_number.value, t.counter_account) for t in BALANCE_TYPES.values()
    ] == TABLE


def test_admin_types_are_four() -> None:
    assert tuple(code for code, t in BALANCE_TYPES.items() if t.is_admin) == ADMIN_TYPES == (326, 335, 341, 342)


def test_reserved_types_are_three() -> None:
    assert [code for code, t in BALANCE_TYPES.items() if t.is_reserved] == [511, 512, 521]


@pytest.mark.parametrize(
    ("sign", "taken"),
    [
        (Sign.POSITIVE, {1}),
        (Sign.NEGATIVE, {-1}),
        (Sign.ZERO, {0}),
        (Sign.ZERO_OR_NEGATIVE, {0, -1}),
        (Sign.EITHER, {1, -1}),
    ],
)
def test_signs_take_what_they_say(sign: Sign, taken: set[int]) -> None:
    assert {amount for amount in (-1, 0, 1) if sign.takes(amount)} == taken


def test_clearing_is_one_account_a_channel() -> None:
    assert BALANCE_TYPES[321].counter_account_for("alipay") == "channel_clearing:alipay"
    assert BALANCE_TYPES[321].counter_account_for(None) == "channel_clearing"
    assert BALANCE_TYPES[323].counter_account_for("alipay") == "revenue:orders"


def test_memo_entry_has_no_counter_account() -> None:
    assert BALANCE_TYPES[231].counter_account_for("alipay") is None
    assert BALANCE_TYPES[231].order_number is OrderNumber.NONE


def test_code_that_nobody_knows_is_shown() -> None:
    assert label(234) == ("Unknown (234)", "Unknown")


@pytest.mark.parametrize(
    ("types", "groups", "codes"),
    [
        ([], [], None),
        (["321"], [], [321]),
        ([321, 322], [], [321, 322]),
        (["Admin Adjust"], [], [326, 335]),
        (["Adjustment"], [], [341, 342]),
        (["Refund"], ["Purchase"], [333]),
        (["Refund", "231"], [], [231, 324, 333]),
        ([], ["Traffic Reset"], [231, 232, 233]),
        (["234"], [], [234]),
    ],
)
def test_filter_takes_codes_names_and_groups(
    types: list[str | int], groups: list[str], codes: list[int] | None
) -> None:
    assert codes_of(types=types, groups=groups) == codes


@pytest.mark.parametrize(
    ("types", "groups"), [(["Bonus"], []), ([], ["Refund"]), (["99999"], []), (["²"], []), (["３２１"], [])]
)
def test_filter_refuses_words_that_nobody_knows(types: list[str | int], groups: list[str]) -> None:
    with pytest.raises(UnknownBalanceType):
        codes_of(types=types, groups=groups)
