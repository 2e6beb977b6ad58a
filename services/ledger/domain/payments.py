"""What a payment platform says of a payment, and what of it follows for our order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Protocol

from services.ledger.domain.channels import RECORD_STATUSES
from services.ledger.domain.orders import check_order_no, check_upstream_ref
from shared.errors import InvalidRequest
from shared.money import format_minor, parse_minor
from shared.times import parse_rfc3339

PAYMENTS_MAX: Final = 100  # of one order, in one answer
PAID: Final = frozenset({"success", "refunded"})
AHEAD_MAX: Final = timedelta(days=1)  # clocks and their zones differ, and not by more


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment as its platform knows it. `fee` is what the platform charges us, None where it does not say."""

    order_no: str
    upstream_ref: str
    status: str
    amount: int
    fee: int | None
    currency: str
    occurred_at: datetime


class Order(Protocol):
    """What of an order a payment is compared with."""

    status: str
    amount: int
    currency: str
    upstream_ref: str | None


class Record(Protocol):
    """What is known of a payment, once what was said of it is kept."""

    order_no: str | None
    status: str
    source: str
    voided_by: str | None


class Outcome(StrEnum):
    """What a message about a payment came to.

    settled, failed: the order followed it. already: it had before. noted: nothing follows yet, or any more.
    unknown_order: it names no order of ours in this channel. mismatched: amount or currency are not the order's.
    contradicted: the order is in a state that this cannot lead from, or was paid by another payment, or the payment
    paid another order. not_confirmed: the platform, when asked, says otherwise. not_covered: the order's account does
    not cover it. ignored: it tells of no order's payment.
    """

    SETTLED = "settled"
    FAILED = "failed"
    ALREADY = "already"
    NOTED = "noted"
    UNKNOWN_ORDER = "unknown_order"
    MISMATCHED = "mismatched"
    CONTRADICTED = "contradicted"
    NOT_CONFIRMED = "not_confirmed"
    NOT_COVERED = "not_covered"
    IGNORED = "ignored"


_PAID: Final = frozenset({"settled", "partially_refunded", "refunded"})


def read_payment(content: Any, *, statuses: Mapping[str, str], default_time: datetime) -> Payment:
    """Return the payment that a platform's JSON describes. Fields beyond ours are passed over.

    statuses: the platform's words to ours; a word of ours is understood beside them.
    default_time: when it was said, which is the time of what names none.
    Raises: InvalidRequest, InvalidMoney.
    """
    if type(content) is not dict:
        raise InvalidRequest("A payment is a JSON object.")
    texts = {name: _text(content, name) for name in ("order_no", "upstream_ref", "status", "amount", "currency")}
    status = statuses.get(texts["status"], texts["status"])
    if status not in RECORD_STATUSES:
        raise InvalidRequest.of_field("status", f"Must be one of {', '.join([*RECORD_STATUSES, *statuses])}.")
    amount = parse_minor(texts["amount"], texts["currency"])
    fee = parse_minor(_text(content, "fee"), texts["currency"]) if content.get("fee") is not None else None
    if amount < 0:
        raise InvalidRequest.of_field("amount", "Must not be negative, whichever way the money goes.")
    return Payment(
        order_no=check_order_no(texts["order_no"]),
        upstream_ref=check_upstream_ref(texts["upstream_ref"]) or "",
        status=status,
        amount=amount,
        fee=fee,
        currency=texts["currency"],
        occurred_at=_time(content, default_time),
    )


def payment_that_leads(payments: Sequence[Payment]) -> Payment | None:
    """Return the payment that an order follows: the first paid one, else the latest that may be yet, else the latest.

    A first attempt that failed says nothing while a second is under way.
    """
    by_time = sorted(payments, key=lambda payment: payment.occurred_at)
    paid = [payment for payment in by_time if payment.status in PAID]
    pending = [payment for payment in by_time if payment.status == "pending"]
    return next(iter(paid or reversed(pending or by_time)), None)


def differing(order: Order, payment: Payment) -> list[str]:
    """Return the fields in which a payment is not what the order asked for."""
    fields = {"amount": (order.amount, payment.amount), "currency": (order.currency, payment.currency)}
    return [name for name, (ours, theirs) in fields.items() if ours != theirs]


def outcome_of(order: Order | None, payment: Payment) -> Outcome:
    """Return what a payment comes to, before the order's account was looked at. It moves money only as `settled`."""
    if order is None:
        return Outcome.UNKNOWN_ORDER
    if payment.status == "pending":
        return Outcome.NOTED
    if payment.status == "refunded":
        return Outcome.NOTED if order.status in _PAID else Outcome.CONTRADICTED
    if payment.status == "failed":
        by_status = {"pending": Outcome.FAILED, "failed": Outcome.ALREADY}
        is_another = order.status in _PAID and order.upstream_ref not in (None, payment.upstream_ref)
        # A first attempt that failed says nothing against the second, which paid.
        return Outcome.NOTED if is_another else by_status.get(order.status, Outcome.CONTRADICTED)
    if differing(order, payment):
        return Outcome.MISMATCHED
    if order.status == "pending":
        return Outcome.SETTLED
    is_same = order.status in _PAID and order.upstream_ref in (None, payment.upstream_ref)
    return Outcome.ALREADY if is_same else Outcome.CONTRADICTED


def outcome_beside(record: Record, payment: Payment, *, is_asked: bool) -> Outcome:
    """Return what a payment that would settle its order comes to, beside what is known of it.

    One that paid another order settles no second one, nor does one that a correction judged to count for nothing. What
    failed or was given back after this was said does not come back to life.
    is_asked: whether the platform said it when it was asked, which no callback stands against.
    """
    if record.order_no != payment.order_no or record.voided_by is not None:
        return Outcome.CONTRADICTED
    is_over = record.status in ("failed", "refunded") and not (is_asked and record.source == "callback")
    return Outcome.NOTED if is_over else Outcome.SETTLED


def payment_view(payment: Payment) -> dict[str, Any]:
    """Return a payment as events tell of it."""
    return {
        "upstream_ref": payment.upstream_ref,
        "status": payment.status,
        "amount": format_minor(payment.amount, payment.currency),
        "currency": payment.currency,
    }


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content.get(name)
    if type(value) is not str or not value:
        raise InvalidRequest.of_field(name, "Must be a string.")
    return value


def _time(content: Mapping[str, Any], default: datetime) -> datetime:
    text = content.get("time")
    if text is None:
        return default
    try:
        time = parse_rfc3339(text)
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequest.of_field("time", "A time is RFC 3339 with an offset.") from None
    if time > default + AHEAD_MAX:  # nothing could be said of the payment any more that is not older
        raise InvalidRequest.of_field("time", "This time is still to come.")
    return time
