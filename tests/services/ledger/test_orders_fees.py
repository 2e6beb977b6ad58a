"""What an order costs: the rate in force when it is made, charged once when it settles, never given back."""

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.queries import orders as queries
from services.ledger.sums import fold_deltas
from services.ledger.verification import prove
from shared.contracts.ledger import InsufficientBalance
from tests.services.ledger.channels import register
from tests.services.ledger.orders import ALICE, account, add_merchants, create, events, fail, fund, refund, settle

RATE = {"default_fee_percent": "2.5"}


@pytest.fixture
def session(session: Session) -> Session:
    """A session on a ledger that knows two merchants."""
    add_merchants(session)
    return session


def entries_of(session: Session, order_no: str) -> list[tuple[int, int, str]]:
    query = sa.text("select type, amount, counter_account from entries where order_no = :n order by created_at")
    return [(row.type, row.amount, row.counter_account) for row in session.execute(query, {"n": order_no})]


def detail(session: Session, order_no: str) -> Any:
    return queries.get_order(session, ALICE, order_no=order_no)


def prove_all(session: Session) -> None:
    fold_deltas(session)
    assert prove(session, mode="full")["faults"] == []


def test_fee_of_a_recharge_goes_off_what_came_in(session: Session) -> None:
    number = create(session, kind="recharge", **RATE)["order_no"]
    assert settle(session, number)["fee"] == "0.25"
    assert entries_of(session, number) == [(321, 1000, "channel_clearing:alipay"), (521, -25, "revenue:fees")]
    assert account(session) == (975, 0)
    prove_all(session)


@pytest.mark.parametrize(("kind", "code"), [("purchase", 331), ("renewal", 332), ("withdraw", 322)])
def test_what_holds_money_holds_its_fee_too(session: Session, kind: str, code: int) -> None:
    fund(session, "10.24")
    savepoint = session.begin_nested()
    with pytest.raises(InsufficientBalance):
        create(session, kind=kind, **RATE)
    savepoint.rollback()
    fund(session, "0.01")
    number = create(session, kind=kind, **RATE)["order_no"]
    assert account(session) == (1025, 1025)
    prove_all(session)
    settle(session, number)
    assert [(type_, amount) for type_, amount, _ in entries_of(session, number)] == [(code, -1000), (521, -25)]
    assert account(session) == (0, 0)
    prove_all(session)


def test_failed_order_costs_nothing_and_frees_its_fee(session: Session) -> None:
    fund(session, "20.00")
    number = create(session, kind="purchase", **RATE)["order_no"]
    fail(session, number)
    assert (account(session), entries_of(session, number)) == ((2000, 0), [])
    prove_all(session)


@pytest.mark.parametrize(("kind", "code"), [("payment", 323), ("paid_reset", 233)])
def test_what_holds_nothing_needs_amount_and_fee_together(session: Session, kind: str, code: int) -> None:
    fund(session, "10.24")
    number = create(session, kind=kind, **RATE)["order_no"]
    savepoint = session.begin_nested()
    with pytest.raises(InsufficientBalance) as refused:
        settle(session, number)
    savepoint.rollback()
    assert "index" not in refused.value.extra
    assert (account(session), entries_of(session, number)) == ((1024, 0), [])
    fund(session, "0.01")
    settle(session, number)
    assert [(type_, amount) for type_, amount, _ in entries_of(session, number)] == [(code, -1000), (521, -25)]


def test_fee_is_charged_once_and_never_given_back(session: Session) -> None:
    fund(session, "20.00")
    number = create(session, kind="purchase", **RATE)["order_no"]
    for _ in range(3):
        settle(session, number)
    refund(session, number, "4.00")
    refund(session, number)
    codes = [type_ for type_, _, _ in entries_of(session, number)]
    assert codes == [331, 521, 333, 333]
    assert account(session) == (1975, 0)


def test_channels_rate_goes_before_the_parameter_and_stays_with_the_order(session: Session) -> None:
    register(session, "alipay", config={"fee_percent": "1.5"})
    number = create(session, kind="recharge", **RATE)["order_no"]
    session.execute(sa.text("""update channels set config = '{"fee_percent": "9"}'"""))
    settle(session, number)
    view = detail(session, number)
    assert (view["fee"], view["fee_percent"], view["fee_source"]) == ("0.15", "1.5", "channel")
    other = detail(session, create(session, kind="recharge", channel="wechat", **RATE)["order_no"])
    assert (other["fee"], other["fee_percent"], other["fee_source"]) == ("0.25", "2.5", "parameter")


def test_channel_may_cost_nothing_whatever_the_parameter_says(session: Session) -> None:
    register(session, "alipay", config={"fee_percent": "0"})
    view = detail(session, create(session, kind="recharge", **RATE)["order_no"])
    assert (view["fee"], view["fee_source"]) == ("0", "channel")


def test_without_a_rate_an_order_has_no_fee_and_no_entry_for_it(session: Session) -> None:
    number = create(session, kind="recharge")["order_no"]
    settle(session, number)
    view = detail(session, number)
    assert (view["fee"], view["fee_percent"], view["fee_source"]) == ("0", "0", None)
    assert [type_ for type_, _, _ in entries_of(session, number)] == [321]


def test_settlement_with_a_fee_is_told_as_one_change_of_balances(session: Session) -> None:
    number = create(session, kind="recharge", **RATE)["order_no"]
    settle(session, number)
    assert events(session) == ["OrderCreated", "BalancesChanged", "OrderSettled"]
    told = session.scalars(
        sa.text(
            "select (envelope::json -> 'payload' ->> 'fee') from outbox where routing_key like '%.Order%' order by id"
        )
    )
    assert list(told) == ["0.25", "0.25"]
