"""What a platform's word on a payment comes to, for each state of an order; and which of several payments leads."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from services.ledger.domain.payments import (
    Outcome,
    Payment,
    differing,
    outcome_beside,
    outcome_of,
    payment_that_leads,
)

AT = datetime(2026, 11, 24, 8, tzinfo=UTC)


@dataclass
class Order:
    """What of an order a payment is compared with."""

    status: str = "pending"
    amount: int = 1000
    currency: str = "CNY"
    upstream_ref: str | None = None


@dataclass
class Record:
    """What is known of a payment."""

    order_no: str | None = "P-1"
    status: str = "success"
    source: str = "callback"
    voided_by: str | None = None


def payment(
    status: str = "success", ref: str = "u", *, minutes: int = 0, amount: int = 1000, currency: str = "CNY"
) -> Payment:
    return Payment("P-1", ref, status, amount, None, currency, AT + timedelta(minutes=minutes))


@pytest.mark.parametrize(
    ("order_status", "outcomes"),
    [
        ("pending", {"pending": "noted", "success": "settled", "failed": "failed", "refunded": "contradicted"}),
        ("failed", {"pending": "noted", "success": "contradicted", "failed": "already", "refunded": "contradicted"}),
        ("settled", {"pending": "noted", "success": "already", "failed": "contradicted", "refunded": "noted"}),
        (
            "partially_refunded",
            {"pending": "noted", "success": "already", "failed": "contradicted", "refunded": "noted"},
        ),
        ("refunded", {"pending": "noted", "success": "already", "failed": "contradicted", "refunded": "noted"}),
    ],
)
def test_each_word_for_each_state(order_status: str, outcomes: dict[str, str]) -> None:
    ref = None if order_status in ("pending", "failed") else "u"
    found = {status: outcome_of(Order(order_status, upstream_ref=ref), payment(status)).value for status in outcomes}
    assert found == outcomes


def test_money_moves_only_for_the_orders_own_amount_and_currency() -> None:
    for other in (payment(amount=999), payment(currency="USD")):
        assert outcome_of(Order(), other) is Outcome.MISMATCHED
        assert differing(Order(), other) != []
    assert outcome_of(None, payment()) is Outcome.UNKNOWN_ORDER


def test_payment_of_another_number_is_no_second_one() -> None:
    paid = Order("settled", upstream_ref="first")
    assert outcome_of(paid, payment(ref="second")) is Outcome.CONTRADICTED
    assert outcome_of(paid, payment("failed", ref="second")) is Outcome.NOTED
    assert outcome_of(Order("settled"), payment(ref="any")) is Outcome.ALREADY


@pytest.mark.parametrize(
    ("payments", "leads"),
    [
        ([payment(ref="a", minutes=2), payment(ref="b", minutes=1)], "b"),
        ([payment("failed", "a", minutes=1), payment("success", "b", minutes=2)], "b"),
        ([payment("failed", "a", minutes=2), payment("pending", "b", minutes=1)], "b"),
        ([payment("pending", "a", minutes=1), payment("pending", "b", minutes=2)], "b"),
        ([payment("failed", "a", minutes=1), payment("failed", "b", minutes=2)], "b"),
        ([payment("refunded", "a", minutes=1), payment("success", "b", minutes=2)], "a"),
    ],
)
def test_first_that_was_paid_leads_else_what_may_be_yet(payments: list[Payment], leads: str) -> None:
    for order in permutations(payments):
        found = payment_that_leads(order)
        assert found is not None
        assert found.upstream_ref == leads
    assert payment_that_leads([]) is None


@pytest.mark.parametrize(
    ("record", "outcome"),
    [
        (Record(), "settled"),
        (Record(status="pending"), "settled"),
        (Record(status="failed"), "noted"),
        (Record(status="refunded"), "noted"),
        (Record(order_no="P-2"), "contradicted"),
        (Record(order_no=None), "contradicted"),
        (Record(voided_by="cor_1"), "contradicted"),
    ],
)
def test_what_is_known_of_a_payment_stands_beside_what_is_said(record: Record, outcome: str) -> None:
    assert outcome_beside(record, payment(), is_asked=False).value == outcome


@pytest.mark.parametrize("status", ["failed", "refunded"])
def test_no_callback_stands_against_what_the_platform_says_when_asked(status: str) -> None:
    for source, outcome in (("callback", "settled"), ("query", "noted"), ("statement", "noted")):
        assert outcome_beside(Record(status=status, source=source), payment(), is_asked=True).value == outcome
