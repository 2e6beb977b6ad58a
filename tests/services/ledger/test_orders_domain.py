"""Which state of an order leads where, and how much a refund gives back."""

from typing import Any

import pytest

from services.ledger.domain.orders import (
    HOLDING,
    Kind,
    Status,
    Verb,
    amount_to_refund,
    check_order,
    check_reason,
    check_upstream_ref,
    refunding_change,
    settling_change,
    state_after,
)
from shared.contracts.ledger import OrderNotPending, OrderNotRefundable, OrderNotSettled, RefundTooLarge
from shared.errors import InvalidRequest
from shared.money import InvalidMoney
from tests.conftest import AURORA

PENDING, FAILED, SETTLED, PARTLY, REFUNDED = (
    Status.PENDING, Status.FAILED, Status.SETTLED, Status.PARTIALLY_REFUNDED, Status.REFUNDED,
)  # fmt: skip
VALID = {
    "order_no": "P-1", "merchant_id": AURORA, "user_id": "user-1", "kind": "payment", "amount": "12.50",
    "currency": "CNY", "channel": "alipay",
}  # fmt: skip
CONTENT = {name: value for name, value in VALID.items() if name not in ("kind", "amount")}


@pytest.mark.parametrize(
    ("status", "verb", "outcome"),
    [
        (PENDING, Verb.SETTLE, SETTLED),
        (PENDING, Verb.FAIL, FAILED),
        (PENDING, Verb.REFUND, OrderNotSettled),
        (FAILED, Verb.SETTLE, OrderNotPending),
        (FAILED, Verb.FAIL, FAILED),
        (FAILED, Verb.REFUND, OrderNotSettled),
        (SETTLED, Verb.SETTLE, SETTLED),
        (SETTLED, Verb.FAIL, OrderNotPending),
        (SETTLED, Verb.REFUND, REFUNDED),
        (PARTLY, Verb.SETTLE, PARTLY),
        (PARTLY, Verb.FAIL, OrderNotPending),
        (PARTLY, Verb.REFUND, REFUNDED),
        (REFUNDED, Verb.SETTLE, REFUNDED),
        (REFUNDED, Verb.FAIL, OrderNotPending),
        (REFUNDED, Verb.REFUND, REFUNDED),
    ],
)
def test_state_and_verb_lead_to_a_state_or_are_refused(status: Status, verb: Verb, outcome: Any) -> None:
    if isinstance(outcome, Status):
        assert state_after(status.value, verb) == outcome
    else:
        with pytest.raises(outcome):
            state_after(status.value, verb)


@pytest.mark.parametrize(
    ("kind", "code", "amount", "counter_account"),
    [
        ("recharge", 321, 1250, "channel_clearing:alipay"),
        ("withdraw", 322, -1250, "payout_clearing"),
        ("payment", 323, -1250, "revenue:orders"),
        ("purchase", 331, -1250, "revenue:plans"),
        ("renewal", 332, -1250, "revenue:plans"),
        ("paid_reset", 233, -1250, "revenue:resets"),
    ],
)
def test_each_kind_settles_by_its_own_type(kind: str, code: int, amount: int, counter_account: str) -> None:
    change = settling_change(**CONTENT, kind=kind, amount=1250)
    assert (change.type.code, change.amount, change.order_no) == (code, amount, "P-1")
    assert change.type.counter_account_for(change.channel) == counter_account


@pytest.mark.parametrize(("kind", "code"), [("payment", 324), ("paid_reset", 324), ("purchase", 333), ("renewal", 333)])
def test_what_was_consumed_is_refunded_by_its_own_type(kind: str, code: int) -> None:
    change = refunding_change(**CONTENT, kind=kind, amount=50, reason="Broken.")
    assert (change.type.code, change.amount, change.reason) == (code, 50, "Broken.")


@pytest.mark.parametrize("kind", ["recharge", "withdraw"])
def test_what_a_platform_paid_is_not_refunded(kind: str) -> None:
    with pytest.raises(OrderNotRefundable):
        refunding_change(**CONTENT, kind=kind, amount=50, reason="x")


def test_purchase_renewal_and_withdrawal_hold_their_amount() -> None:
    held = {kind: check_order(**VALID | {"kind": kind.value}).held(fee=25) for kind in Kind}
    assert held == {kind: 1275 if kind in HOLDING else 0 for kind in Kind}
    assert {Kind.PURCHASE, Kind.RENEWAL, Kind.WITHDRAW} == HOLDING


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"order_no": ""}, "order_no"),
        ({"order_no": ".."}, "order_no"),
        ({"order_no": "a/b"}, "order_no"),
        ({"order_no": "a" * 65}, "order_no"),
        ({"order_no": "a\n"}, "order_no"),
        ({"order_no": 1}, "order_no"),
        ({"kind": "gift"}, "kind"),
        ({"kind": None}, "kind"),
        ({"amount": "0"}, "amount"),
        ({"amount": "-1.00"}, "amount"),
        ({"amount": "1.001"}, "amount"),
        ({"amount": 1.5}, "amount"),
        ({"amount": "10000000000000000"}, "amount"),
        ({"currency": "XXZ"}, "currency"),
        ({"currency": []}, "currency"),
        ({"merchant_id": None}, "merchant_id"),
        ({"user_id": "a b"}, "user_id"),
        ({"channel": "a b"}, "channel"),
    ],
)
def test_malformed_order_is_refused_by_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_order(**VALID | wrong)
    assert list(caught.value.errors or {}) == [field]


def test_only_a_paid_reset_may_cost_nothing() -> None:
    order = check_order(**VALID | {"kind": "paid_reset", "amount": "0"})
    assert (order.amount, order.held(fee=0), order.change.amount) == (0, 0, 0)


@pytest.mark.parametrize(
    ("paid", "refunded", "wanted", "amount"),
    [
        (100, 0, None, 100),
        (100, 30, None, 70),
        (100, 0, "0.30", 30),
        (100, 99, "0.01", 1),
        (100, 0, "1.01", RefundTooLarge),
        (100, 99, "0.02", RefundTooLarge),
        (100, 100, "0.01", RefundTooLarge),
        (100, 100, None, RefundTooLarge),
        (100, 250, None, RefundTooLarge),
        (0, 0, None, RefundTooLarge),
        (100, 0, "0", InvalidRequest),
        (100, 0, "-1.00", InvalidRequest),
        (100, 0, "0.001", InvalidMoney),
    ],
)
def test_refund_gives_back_what_is_left_and_never_more(
    paid: int, refunded: int, wanted: str | None, amount: Any
) -> None:
    if isinstance(amount, int):
        assert amount_to_refund(paid=paid, refunded=refunded, wanted=wanted, currency="CNY") == amount
    else:
        with pytest.raises(amount):
            amount_to_refund(paid=paid, refunded=refunded, wanted=wanted, currency="CNY")


@pytest.mark.parametrize("wrong", ["", "a b", "a\x00", "a" * 129, 7])
def test_malformed_upstream_reference_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidRequest):
        check_upstream_ref(wrong)


@pytest.mark.parametrize("wrong", [None, "", "  ", "a\x1fb", "a" * 501, 7])
def test_refund_needs_a_readable_reason(wrong: Any) -> None:
    with pytest.raises(InvalidRequest):
        check_reason(wrong, is_required=True)


def test_blank_reason_of_a_failure_is_none() -> None:
    assert check_reason(" ", is_required=False) is None
