"""The sample file holds what it promises: every type, every user, valid amounts, nobody overdrawn."""

import io
import subprocess
import sys
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import pytest

from services.ledger.domain.balance_types import BALANCE_TYPES, OrderNumber
from shared.money import parse_minor
from simulators.sample_data import WEIGHTS, SampleChange, make_changes, read_changes, summarize, write_changes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def changes() -> list[SampleChange]:
    return make_changes(rows=10_000, users=200, seed=7, merchants=["A", "B"])


def test_file_has_all_rows_types_users_and_merchants(changes: list[SampleChange]) -> None:
    assert len(changes) == 10_000
    assert {int(change.type) for change in changes} == {t.code for t in BALANCE_TYPES.values() if not t.is_reserved}
    assert len({change.user_id for change in changes}) == 200
    assert {change.merchant_code for change in changes} == {"A", "B"}
    assert {change.currency for change in changes} == {"CNY", "USDT"}


def test_user_belongs_to_one_merchant(changes: list[SampleChange]) -> None:
    assert len({(change.user_id, change.merchant_code) for change in changes}) == 200


def test_nobody_is_overdrawn_in_the_files_order(changes: list[SampleChange]) -> None:
    balances: dict[tuple[str, str], int] = defaultdict(int)
    for change in changes:
        balances[change.user_id, change.currency] += parse_minor(change.amount, change.currency)
        assert balances[change.user_id, change.currency] >= 0


def test_each_change_is_one_that_the_ledger_takes(changes: list[SampleChange]) -> None:
    for change in changes:
        balance_type = BALANCE_TYPES[int(change.type)]
        assert balance_type.sign.takes(parse_minor(change.amount, change.currency)), change
        if balance_type.order_number is OrderNumber.REQUIRED:
            assert change.order_no, change
        if balance_type.order_number is OrderNumber.NONE:
            assert not change.order_no, change
        assert bool(change.reason) == balance_type.is_admin, change


def test_refund_is_of_a_payment_and_never_more(changes: list[SampleChange]) -> None:
    paid: dict[str, Decimal] = {}
    for change in changes:
        if change.type in ("323", "331", "332"):
            paid[change.order_no] = -Decimal(change.amount)
        if change.type in ("324", "333"):
            assert Decimal(change.amount) <= paid.pop(change.order_no), "an order is refunded once"


def test_order_number_stands_once_for_each_type(changes: list[SampleChange]) -> None:
    numbered = [(change.order_no, change.type) for change in changes if change.order_no]
    assert len(set(numbered)) == len(numbered)


def test_same_seed_makes_the_same_file_and_another_seed_shares_nothing_with_it() -> None:
    def made(seed: int) -> list[SampleChange]:
        return make_changes(rows=300, users=20, seed=seed, merchants=["A"])

    assert made(1) == made(1)
    assert not {c.user_id for c in made(1)} & {c.user_id for c in made(2)}
    orders = [{c.order_no for c in made(seed)} - {""} for seed in (1, 2)]
    assert not orders[0] & orders[1]


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="do not suffice"):
        make_changes(rows=199, users=200, seed=1, merchants=["A"])
    with pytest.raises(ValueError, match="do not suffice"):
        make_changes(rows=10, users=1, seed=1, merchants=["A"])
    with pytest.raises(ValueError, match="do not suffice"):
        make_changes(rows=100, users=10, seed=1, merchants=[])


def test_one_user_and_few_rows_are_enough_for_every_type() -> None:
    changes = make_changes(rows=200, users=1, seed=3, merchants=["A"])
    assert {int(change.type) for change in changes} == set(WEIGHTS)


def test_file_that_was_written_reads_the_same(changes: list[SampleChange]) -> None:
    file = io.StringIO()
    write_changes(changes, file)
    assert read_changes(file.getvalue().splitlines()) == changes
    with pytest.raises(ValueError, match="columns"):
        read_changes(["a,b", "1,2"])


def test_summary_adds_up() -> None:
    def change(type: str, amount: str, currency: str = "CNY") -> SampleChange:
        return SampleChange(merchant_code="A", user_id="u", type=type, amount=amount, currency=currency)

    summary = summarize([change("326", "5.00"), change("326", "-2.50"), change("231", "0"), change("326", "1", "USDT")])
    assert list(summary) == [(231, "CNY"), (326, "CNY"), (326, "USDT")]
    both = summary[326, "CNY"]
    assert (both.count, both.increase, both.decrease, both.net) == (2, Decimal(5), Decimal("-2.5"), Decimal("2.5"))


def test_command_prints_the_file() -> None:
    words = ["changes", "--rows", "60", "--users", "3", "--seed", "5", "--merchants", "north,south"]
    command = [sys.executable, "-m", "simulators.sample_data", *words]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert read_changes(printed.splitlines()) == make_changes(rows=60, users=3, seed=5, merchants=["north", "south"])
