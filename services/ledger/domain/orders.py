"""What an order is, which of its states leads where, and what each step moves."""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from services.ledger.domain.balance_types import BALANCE_TYPES
from services.ledger.domain.changes import AMOUNT_MINOR_MAX, Change, check_change, text_of
from shared.contracts.ledger import (
    OrderNotPending,
    OrderNotRefundable,
    OrderNotSettled,
    RefundedThroughOrder,
    RefundTooLarge,
    SettledThroughOrder,
)
from shared.errors import Conflict, InvalidRequest
from shared.money import InvalidMoney, format_minor, parse_minor

# It stands in paths, so it has none of their signs, and does not begin with a dot.
_ORDER_NO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_UPSTREAM_REF = re.compile(r"[!-~]{1,128}")


class Kind(StrEnum):
    """What an order is for."""

    RECHARGE = "recharge"
    PURCHASE = "purchase"
    RENEWAL = "renewal"
    PAYMENT = "payment"
    WITHDRAW = "withdraw"
    PAID_RESET = "paid_reset"


class Status(StrEnum):
    """How far an order has come. Its money has moved in all but the first two."""

    PENDING = "pending"
    FAILED = "failed"
    SETTLED = "settled"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"


class Verb(StrEnum):
    """What can be done to an order."""

    SETTLE = "settle"
    FAIL = "fail"
    REFUND = "refund"


HOLDING: Final = frozenset({Kind.PURCHASE, Kind.RENEWAL, Kind.WITHDRAW})
REFUND_TYPES: Final = frozenset({324, 333})
FEE_TYPE: Final = 521
_TYPE_SETTLED: Final = {
    Kind.RECHARGE: 321,
    Kind.WITHDRAW: 322,
    Kind.PAYMENT: 323,
    Kind.PURCHASE: 331,
    Kind.RENEWAL: 332,
    Kind.PAID_RESET: 233,
}
# What came from or went to a payment platform is given back there, by an order of the other direction.
_TYPE_REFUNDED: Final = {Kind.PAYMENT: 324, Kind.PAID_RESET: 324, Kind.PURCHASE: 333, Kind.RENEWAL: 333}
REFUNDABLE: Final = frozenset(_TYPE_REFUNDED)
# What may be an order's own act: posted otherwise, its number is looked up first.
TYPES_OF_ORDERS: Final = REFUND_TYPES | frozenset(_TYPE_SETTLED.values())

# The state that a verb leads to; the same state where the verb was carried out before and nothing is left to do; or
# why it is refused. A refund leads to `refunded` or `partially_refunded`, as its amount has it.
_STATES: Final[dict[tuple[Status, Verb], Status | type[Conflict]]] = {
    (Status.PENDING, Verb.SETTLE): Status.SETTLED,
    (Status.PENDING, Verb.FAIL): Status.FAILED,
    (Status.PENDING, Verb.REFUND): OrderNotSettled,
    (Status.FAILED, Verb.SETTLE): OrderNotPending,
    (Status.FAILED, Verb.FAIL): Status.FAILED,
    (Status.FAILED, Verb.REFUND): OrderNotSettled,
    (Status.SETTLED, Verb.SETTLE): Status.SETTLED,
    (Status.SETTLED, Verb.FAIL): OrderNotPending,
    (Status.SETTLED, Verb.REFUND): Status.REFUNDED,
    (Status.PARTIALLY_REFUNDED, Verb.SETTLE): Status.PARTIALLY_REFUNDED,
    (Status.PARTIALLY_REFUNDED, Verb.FAIL): OrderNotPending,
    (Status.PARTIALLY_REFUNDED, Verb.REFUND): Status.REFUNDED,
    (Status.REFUNDED, Verb.SETTLE): Status.REFUNDED,
    (Status.REFUNDED, Verb.FAIL): OrderNotPending,
    (Status.REFUNDED, Verb.REFUND): Status.REFUNDED,
}


def state_after(status: str, verb: Verb) -> Status:
    """Return the state that a verb leads to; the present one where it was carried out before.

    Raises: OrderNotPending, OrderNotSettled.
    """
    after = _STATES[Status(status), verb]
    if isinstance(after, Status):
        return after
    raise after(f"The order is {status}.", status=status)


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order that is valid by itself. `change` is what it will post when it settles."""

    kind: Kind
    amount: int
    change: Change

    def held(self, fee: int) -> int:
        """Return how much of the balance it holds while it is pending: what it will take, its fee included."""
        return self.amount + fee if self.kind in HOLDING else 0


def check_order(
    *,
    order_no: Any,
    merchant_id: Any,
    user_id: Any,
    kind: Any,
    amount: Any,
    currency: Any,
    channel: Any,
) -> NewOrder:
    """Return the order that a client describes. Its amount is positive whichever way the money goes.

    Raises: InvalidRequest, InvalidMoney.
    """
    check_order_no(order_no)
    if type(kind) is not str or kind not in set(Kind):
        raise InvalidRequest.of_field("kind", f"Must be one of {', '.join(Kind)}.")
    if type(currency) is not str:
        raise InvalidRequest.of_field("currency", "Must be a string.")
    minor = parse_minor(amount, currency)
    if minor > AMOUNT_MINOR_MAX:
        raise InvalidMoney.of_field("amount", "The amount is too large.")
    if minor < 0 or (minor == 0 and kind != Kind.PAID_RESET):
        raise InvalidRequest.of_field("amount", "Must be more than zero.")
    change = settling_change(
        order_no=order_no,
        merchant_id=merchant_id,
        user_id=user_id,
        kind=kind,
        amount=minor,
        currency=currency,
        channel=channel,
    )
    return NewOrder(Kind(kind), minor, change)


def settling_change(
    *,
    order_no: str,
    merchant_id: str,
    user_id: str | None,
    kind: str,
    amount: int,
    currency: str,
    channel: str | None,
) -> Change:
    """Return the change that settles an order. Raises: InvalidRequest."""
    raw = {
        "merchant_id": merchant_id,
        "user_id": user_id,
        "type": settled_type(kind),
        "amount": format_minor(amount if kind == Kind.RECHARGE else -amount, currency),
        "currency": currency,
        "order_no": order_no,
        "channel": channel,
    }
    return check_change(raw, is_admin=False)


def fee_change(settling: Change, fee: int) -> Change:
    """Return the change that charges a fee beside the change that settles an order, to the same holder."""
    return replace(settling, type=BALANCE_TYPES[FEE_TYPE], amount=-fee)


def refunding_change(
    *,
    order_no: str,
    merchant_id: str,
    user_id: str | None,
    kind: str,
    amount: int,
    currency: str,
    channel: str | None,
    reason: str,
) -> Change:
    """Return the change that refunds an amount of an order. Raises: OrderNotRefundable, InvalidRequest."""
    raw = {
        "merchant_id": merchant_id,
        "user_id": user_id,
        "type": refund_type(kind),
        "amount": format_minor(amount, currency),
        "currency": currency,
        "order_no": order_no,
        "channel": channel,
        "reason": reason,
    }
    return check_change(raw, is_admin=False)


def settled_type(kind: str) -> int:
    """Return the balance type that settles an order."""
    return _TYPE_SETTLED[Kind(kind)]


def refund_type(kind: str) -> int:
    """Return the balance type that refunds an order. Raises: OrderNotRefundable."""
    code = _TYPE_REFUNDED.get(Kind(kind))
    if code is None:
        raise OrderNotRefundable(f"An order of kind {kind} has no refund.", kind=kind)
    return code


def refuse_past_order(*, code: int, kind: str) -> None:
    """Refuse a balance change that does, with an order's number, what the order's own acts do and count.

    Raises: RefundedThroughOrder, SettledThroughOrder.
    """
    if code in REFUND_TYPES:
        raise RefundedThroughOrder
    if code == settled_type(kind):
        raise SettledThroughOrder


def amount_to_refund(*, paid: int, refunded: int, wanted: str | None, currency: str) -> int:
    """Return how much a refund gives back.

    refunded: what all refunds before gave back, of whatever balance type.
    wanted: a decimal string, or None for all that is left.
    Raises, in order: InvalidMoney; InvalidRequest for an amount that is not positive; RefundTooLarge.
    """
    left = max(paid - refunded, 0)
    amount = left if wanted is None else parse_minor(wanted, currency)
    if wanted is not None and amount <= 0:
        raise InvalidRequest.of_field("amount", "Must be more than zero.")
    if amount > left or amount == 0:
        raise RefundTooLarge(refundable=format_minor(left, currency), currency=currency)
    return amount


def check_order_no(order_no: Any) -> str:
    """Return an order's number. Raises: InvalidRequest."""
    if type(order_no) is not str or not _ORDER_NO.fullmatch(order_no):
        raise InvalidRequest.of_field(
            "order_no", "Must be 1 to 64 letters, digits or one of . _ : - and begin with a letter or digit."
        )
    return order_no


def check_upstream_ref(upstream_ref: Any) -> str | None:
    """Return a payment platform's own number of an order. Raises: InvalidRequest."""
    if upstream_ref is None:
        return None
    if type(upstream_ref) is not str or not _UPSTREAM_REF.fullmatch(upstream_ref):
        raise InvalidRequest.of_field("upstream_ref", "Must be 1 to 128 printable ASCII characters without spaces.")
    return upstream_ref


def check_reason(reason: Any, *, is_required: bool) -> str | None:
    """Return why something is done; None where nothing is said. Raises: InvalidRequest."""
    text = text_of({"reason": reason}, "reason")
    if text is None or not text.strip():
        if is_required:
            raise InvalidRequest.of_field("reason", "Must have 1 to 500 characters.")
        return None
    return text
