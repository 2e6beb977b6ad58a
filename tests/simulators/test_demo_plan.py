"""The demonstration's plan: nobody is overdrawn, every kind of mismatch is planted, statements say what was planned."""

import csv
from collections import defaultdict
from datetime import date
from decimal import Decimal

import pytest

from simulators.demo.books import statement
from simulators.demo.plan import (
    CHANNELS,
    CLOSED_DAYS,
    DAYS,
    PLANTS,
    Channel,
    PlannedOrder,
    plan_past,
    records_of,
    subject_of,
)

LAST_DAY = date(2026, 3, 1)
INCREASES = ("recharge",)
FEE_MAX = Decimal("0.01")


@pytest.fixture(scope="module")
def orders() -> list[PlannedOrder]:
    return plan_past(LAST_DAY, "Asia/Shanghai")


def test_orders_fill_thirty_days_in_their_order(orders: list[PlannedOrder]) -> None:
    days = sorted({order.at.date() for order in orders})
    assert (len(days), days[-1]) == (DAYS, LAST_DAY)
    assert [order.at for order in orders] == sorted(order.at for order in orders)
    assert len({order.order_no for order in orders}) == len(orders)


def test_nobody_is_overdrawn_even_with_fees_and_corrections(orders: list[PlannedOrder]) -> None:
    balances: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for order in orders:
        amount = Decimal(order.amount)
        is_increase = order.kind in INCREASES
        if is_increase and (order.end == "failed" or order.plant):
            continue  # what is planted may be taken back
        balances[order.user_id, order.currency] += amount * (1 - FEE_MAX) if is_increase else -amount * (1 + FEE_MAX)
        assert balances[order.user_id, order.currency] >= 0, order


def test_each_kind_of_mismatch_is_planted_and_those_of_closed_days_are_decided_on(orders: list[PlannedOrder]) -> None:
    planted = [order for order in orders if order.plant]
    assert len(planted) == len(PLANTS)
    assert len({subject_of(order) for order in planted}) == len(PLANTS)
    assert len({plant.kind for plant in PLANTS.values()}) == 6
    assert {plant.act for number, plant in PLANTS.items() if number < CLOSED_DAYS}.isdisjoint({"leave", "reverse"})


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda channel: channel.code)
def test_statement_has_the_channels_own_columns_and_words(channel: Channel, orders: list[PlannedOrder]) -> None:
    records = [record for order in orders for record in records_of(order) if record.channel == channel.code]
    rows = list(
        csv.DictReader(statement(channel, records).splitlines(), delimiter=channel.config.get("delimiter", ","))
    )
    name = channel.config.get("columns", {}).get
    assert [row[name("upstream_ref", "upstream_ref")] for row in rows] == [record.upstream_ref for record in records]
    sign = channel.config.get("decimal_sign", ".")
    assert sum(Decimal(row[name("amount", "amount")].replace(sign, ".")) for row in rows) == sum(
        Decimal(record.amount) for record in records
    )
    assert ("currency" in rows[0]) == ("currency" not in channel.config)
