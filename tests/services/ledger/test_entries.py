"""How a change becomes an entry, without a database."""

from dataclasses import replace

import pytest

from services.ledger.domain.entries import BALANCE_MINOR_MAX, Account, Maker, enter, time_text, view_of
from services.ledger.domain.thresholds import Threshold
from shared.contracts.ledger import BalanceTooLarge, InsufficientBalance
from tests.services.ledger.conftest import AURORA, change

ALICE = Maker("usr_alice", "Alice", "user", "req_1")
AT = 1_764_000_000_000_000


def account(**fields: int) -> Account:
    return Account(7, AURORA, "user", "user-1", "CNY", **fields)


def test_entry_continues_the_account() -> None:
    of_user = account(balance=500, version=3)
    entry = enter(of_user, change(amount="1.00"), ALICE, at_microseconds=AT)
    assert (entry.version, entry.balance_before, entry.amount, entry.balance_after) == (4, 500, 100, 600)
    assert (of_user.balance, of_user.version, of_user.digest) == (600, 4, entry.digest)


def test_balance_may_fall_to_what_is_held_and_not_below() -> None:
    of_user = account(balance=500, held=300)
    enter(of_user, change(type=323, amount="-2.00"), ALICE, at_microseconds=AT)
    with pytest.raises(InsufficientBalance) as caught:
        enter(of_user, change(type=323, amount="-0.01"), ALICE, at_microseconds=AT)
    assert caught.value.extra == {"available": "0", "currency": "CNY"}
    assert (of_user.balance, of_user.version) == (300, 1)


def test_balance_beyond_what_a_bigint_holds_safely_is_refused() -> None:
    of_user = account(balance=BALANCE_MINOR_MAX)
    with pytest.raises(BalanceTooLarge):
        enter(of_user, change(amount="0.01"), ALICE, at_microseconds=AT)
    assert of_user.version == 0


@pytest.mark.parametrize(
    "other",
    [
        {"note": "another"},
        {"order_no": "P-other"},
        {"channel": "wechat"},
        {"amount": "1.01"},
        {"type": 324},
    ],
)
def test_digest_depends_on_every_word_of_the_change(other: dict[str, object]) -> None:
    same = {"amount": "1.00", "order_no": "P-1", "note": "one", "channel": "alipay"}
    first = enter(account(), change(**same), ALICE, at_microseconds=AT)
    again = enter(account(), change(**same), ALICE, at_microseconds=AT)
    differs = enter(account(), change(**same | other), ALICE, at_microseconds=AT)
    assert first.digest == again.digest != differs.digest


def test_digest_depends_on_the_entries_before_and_on_who_made_it() -> None:
    first = enter(account(), change(order_no="P-1"), ALICE, at_microseconds=AT)
    after_another = replace(account(), digest=b"x" * 32)
    assert enter(after_another, change(order_no="P-1"), ALICE, at_microseconds=AT).digest != first.digest
    bob = replace(ALICE, actor_name="Bob")
    assert enter(account(), change(order_no="P-1"), bob, at_microseconds=AT).digest != first.digest


def test_view_says_what_the_api_says() -> None:
    made = change(amount="12.50", order_no="P-1", note="first", channel="alipay")
    assert view_of(enter(account(), made, ALICE, at_microseconds=AT)) == {
        "entry_id": "ent_7_1",
        "user_id": "user-1",
        "holder_type": "user",
        "holder_id": "user-1",
        "merchant_id": AURORA,
        "amount": "12.50",
        "currency": "CNY",
        "order_no": "P-1",
        "balance": "12.50",
        "version": 1,
        "type": 321,
        "type_name": "Recharge",
        "group": "Recharge/Withdrawal",
        "time": "2025-11-24T16:00:00.000000Z",
        "operator": "Alice",
        "channel": "alipay",
        "note": "first",
        "reason": None,
    }


def test_program_is_no_operator() -> None:
    program = replace(ALICE, actor_type="api_key")
    assert view_of(enter(account(), change(), program, at_microseconds=AT))["operator"] is None


def test_time_always_has_six_digits() -> None:
    assert time_text(AT + 1) == "2025-11-24T16:00:00.000001Z"


@pytest.mark.parametrize(
    ("threshold", "currency", "least"),
    [("10000.00", "CNY", 1_000_000), ("10000.00", "JPY", 10_000), ("0.5", "JPY", 1), ("0.01", "USDT", 10_000)],
)
def test_threshold_is_compared_in_the_currencys_own_units(threshold: str, currency: str, least: int) -> None:
    limit = Threshold(threshold)
    assert limit.is_reached(least, currency)
    assert limit.is_reached(-least, currency)
    assert not limit.is_reached(least - 1, currency)
