"""The rules of telegram, without a database."""

from decimal import Decimal

import pytest

from services.telegram.domain import (
    ALL_CHATS_RATE,
    CHAT_RATE,
    adjustment_text,
    backoff_seconds,
    is_large,
    large_change_text,
    parse_chat_id,
    parse_threshold,
    repeated_text,
    threshold_text,
)
from shared.contracts.telegram import InvalidChatId, InvalidThreshold

CHANGE = {
    "user_id": "u1001",
    "type": 322,
    "group": "Recharge/Withdrawal",
    "type_name": "Withdraw",
    "amount": "-1500.00",
    "currency": "CNY",
    "balance": "20.00",
    "order_no": "W7",
    "time": "2026-11-24T08:00:00Z",
}


@pytest.mark.parametrize(
    ("amount", "threshold", "expected"),
    [
        ("1000.00", "1000", True),
        ("999.99", "1000", False),
        ("-1000.00", "1000", True),
        ("0", "0.01", False),
        ("1000.000000", "1000", True),
        ("0.000001", "0.000001", True),
    ],
)
def test_change_is_large_from_the_threshold_on_in_either_direction(amount: str, threshold: str, expected: bool) -> None:
    assert is_large(amount, Decimal(threshold)) is expected


@pytest.mark.parametrize("text", ["", "0", "-5", "1e3", "1.0000000", "abc", "٣", "NaN", "1,000", "01", " 1"])
def test_threshold_that_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(InvalidThreshold) as refusal:
        parse_threshold(text, "large_change.threshold")
    assert refusal.value.errors is not None
    assert list(refusal.value.errors) == ["large_change.threshold"]


@pytest.mark.parametrize(("text", "shown"), [("1000", "1000.00"), ("0.5", "0.50"), ("12.345600", "12.3456")])
def test_threshold_is_shown_with_two_digits_or_more(text: str, shown: str) -> None:
    assert threshold_text(parse_threshold(text, "t")) == shown


@pytest.mark.parametrize("text", ["", "0", "@name", "-", "1.5", "-01", "12345678901234567", "١"])
def test_chat_id_that_is_no_number_of_telegrams_is_refused(text: str) -> None:
    with pytest.raises(InvalidChatId):
        parse_chat_id(text)


def test_group_reads_who_what_and_how_much() -> None:
    assert large_change_text(CHANGE, "en").split("\n") == [
        "Large balance change",
        "User: u1001",
        "Type: 322 Recharge/Withdrawal / Withdraw",
        "Amount: -1500.00 CNY",
        "Balance after: 20.00 CNY",
        "Order: W7",
        "Time: 2026-11-24T08:00:00Z",
    ]


def test_group_reads_why_a_balance_was_adjusted() -> None:
    change = CHANGE | {"type": 335, "group": "Purchase", "type_name": "Admin Adjust", "reason": "充值未到账"}
    lines = adjustment_text(change, "zh").split("\n")
    assert (lines[0], lines[2], lines[-1]) == ("平台调整余额", "类型: 335 Purchase / Admin Adjust", "原因: 充值未到账")


def test_group_reads_its_own_language() -> None:
    text = large_change_text(CHANGE | {"amount": "5.00", "user_id": None, "order_no": None}, "zh")
    assert text.startswith("大额余额变动\n用户: 商户自有账户")
    assert "+5.00 CNY" in text
    assert "订单号" not in text


def test_message_stays_far_below_telegrams_limit() -> None:
    text = large_change_text(CHANGE | {"user_id": "u" * 5000, "order_no": "o" * 5000}, "en")
    assert len(repeated_text(text, "en")) < 1000


def test_waiting_doubles_up_to_five_minutes() -> None:
    assert [backoff_seconds(n) for n in (1, 2, 3, 8, 9, 500)] == [2, 4, 8, 256, 300, 300]


def test_rates_keep_within_telegrams_limits() -> None:
    assert CHAT_RATE.burst + 60 / CHAT_RATE.interval_seconds <= 20
    assert ALL_CHATS_RATE.burst + 1 / ALL_CHATS_RATE.interval_seconds <= 30
