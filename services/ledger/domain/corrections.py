"""What a correction changes, worked out from both sides as they are: the order's fields, records, entries.

A plan is a dictionary of JSON primitives, its amounts in minor units: the content of a proposal, pinned by the digest
of its canonical form. Nothing in it depends on when it is worked out, so that the same sides make the same plan.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final

from services.ledger.domain.days import DayOf
from services.ledger.domain.mismatches import Kind as MismatchKind
from services.ledger.domain.orders import FEE_TYPE, REFUNDABLE, Kind, Status, refund_type, settled_type
from shared.contracts.mismatches import MismatchOutdated, NotCorrectable, OrderTermsRequired, ProposalOutdated
from shared.money import fraction_digits
from shared.times import parse_rfc3339

Content = dict[str, Any]

PAID: Final = frozenset({Status.SETTLED, Status.PARTIALLY_REFUNDED, Status.REFUNDED})
_ADJUSTING_TYPE: Final = {Kind.PURCHASE: 335, Kind.RENEWAL: 335}
_ADJUSTING_TYPE_ELSE: Final = 326
_BUCKET: Final = {
    Kind.RECHARGE: "recharge",
    Kind.WITHDRAW: "withdrawal",
    Kind.PAYMENT: "consumption",
    Kind.PURCHASE: "consumption",
    Kind.RENEWAL: "consumption",
    Kind.PAID_RESET: "resets",
}
# What of an order a correction may change.
FIELDS: Final = ("status", "amount", "refunded", "held", "upstream_ref", "settled_at")
_UNCHANGED: Final = (
    "order_no",
    "merchant_id",
    "user_id",
    "kind",
    "currency",
    "channel",
    "fee",
    "fee_percent",
    "fee_source",
    "given_back",
    "is_new",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderSide:
    """What an order of ours says. `settled_at` is RFC 3339. `is_new`: it is not there yet.

    given_back: what its refunds gave back, those included that were posted before the order was known.
    """

    order_no: str
    merchant_id: str
    user_id: str | None
    kind: str
    currency: str
    channel: str | None
    status: str
    amount: int
    refunded: int
    given_back: int
    held: int
    fee: int
    fee_percent: str
    fee_source: str | None
    upstream_ref: str | None
    settled_at: str | None
    is_new: bool = False

    @property
    def is_paid(self) -> bool:
        """Return whether its money has moved."""
        return self.status in PAID

    @property
    def paid(self) -> int:
        """Return what was paid in the end, as a payment platform counts it."""
        return self.amount if self.is_paid and self.status != Status.REFUNDED else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSide:
    """What a payment platform's record says. `occurred_at` is RFC 3339."""

    id: int
    upstream_ref: str
    order_no: str | None
    status: str
    amount: int
    fee: int
    currency: str
    occurred_at: str
    voided_by: str | None

    @property
    def paid(self) -> int:
        """Return what was paid in the end."""
        return self.amount if self.status == "success" else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Both sides of a mismatch as they are now.

    speaker_id: the record that speaks for the order, as reconciliation has it; None where there is none.
    moved_before: what corrections of the order that stand have moved already, in minor units.
    """

    kind: str
    order: OrderSide | None
    record: RecordSide | None
    speaker_id: int | None = None
    moved_before: int = 0


def plan(sides: Sides, *, to: str, reason: str, day_of: DayOf) -> Content:
    """Return what a correction of a mismatch changes.

    to: `upstream` has our side say what the platform says; `local` has ours stand, and the platform's record count
    for nothing.
    day_of: the day of the books that an instant is of.
    Raises, in order: MismatchOutdated; OrderTermsRequired; NotCorrectable.
    """
    _check_is_as_found(sides)
    content: Content = {
        "kind": sides.kind,
        "to": to,
        "reason": reason,
        "reverses": None,
        "order": None,
        "records": [],
        "new_record": None,
        "entries": [],
        "stakes": [],
    }
    if to == "local":
        return content | _standing_by_ours(sides)
    return content | _following_the_platform(sides, day_of)


def _check_is_as_found(sides: Sides) -> None:
    """Refuse what is not any more as its mismatch says. Raises: MismatchOutdated."""
    order, record, speaker_id = sides.order, sides.record, sides.speaker_id
    if sides.kind == MismatchKind.MISSING_UPSTREAM:
        is_as_found = order is not None and order.is_paid and speaker_id is None
    elif record is None or record.voided_by is not None:
        is_as_found = False
    elif sides.kind == MismatchKind.DUPLICATE_UPSTREAM:
        is_as_found = record.status in ("success", "refunded") and speaker_id not in (None, record.id)
    elif order is None:
        is_as_found = sides.kind == MismatchKind.MISSING_LOCAL
    else:
        is_as_found = speaker_id in (None, record.id)
    if not is_as_found:
        raise MismatchOutdated


def _standing_by_ours(sides: Sides) -> Content:
    order, record = sides.order, sides.record
    has_only_a_record = sides.kind in (MismatchKind.MISSING_LOCAL, MismatchKind.DUPLICATE_UPSTREAM)
    new_record = None
    if order is not None and order.is_paid and not has_only_a_record:
        new_record = {
            "order_no": order.order_no,
            "amount": order.amount,
            "fee": 0 if record is None else record.fee,
            "currency": order.currency,
            "status": "refunded" if order.status == Status.REFUNDED else "success",
            "occurred_at": order.settled_at if record is None else record.occurred_at,
        }
    if order is not None and record is not None and not has_only_a_record and _agree(order, record):
        raise MismatchOutdated
    return {
        "records": [] if record is None else [_voided(record)],
        "new_record": new_record,
        "stakes": _stakes(None if has_only_a_record else order, record),
    }


def _agree(order: OrderSide, record: RecordSide) -> bool:
    as_upstream = "success" if order.is_paid and order.status != Status.REFUNDED else order.status
    is_alike = (record.amount, record.currency) == (order.amount, order.currency) or not order.is_paid
    return record.status == as_upstream and is_alike


def _stakes(order: OrderSide | None, record: RecordSide | None) -> list[list[Any]]:
    """Return what both sides disagree about: amounts, each with its currency."""
    ours = 0 if order is None else order.paid
    theirs = 0 if record is None else record.paid or (record.amount if order is None else 0)
    if order is not None and record is not None and order.status == record.status == "refunded":
        ours, theirs = order.amount, record.amount
    if order is not None and record is not None and order.currency != record.currency:
        return [[ours, order.currency], [theirs, record.currency]]
    currency = order.currency if order is not None else record.currency if record is not None else ""
    return [[abs(ours - theirs), currency]]


def _voided(record: RecordSide) -> Content:
    before = {
        "is_void": False,
        "order_no": record.order_no,
        "status": record.status,
        "amount": record.amount,
        "currency": record.currency,
    }
    return {
        "id": record.id,
        "upstream_ref": record.upstream_ref,
        "before": before,
        "after": before | {"is_void": True},
    }


def _following_the_platform(sides: Sides, day_of: DayOf) -> Content:
    order, record = sides.order, sides.record
    if sides.kind == MismatchKind.DUPLICATE_UPSTREAM:
        raise NotCorrectable(
            "The platform took the same order twice: it gives one back, or its record counts for nothing."
        )
    if record is not None and record.status == "pending":
        raise NotCorrectable("The platform has not said yet what became of it.")
    if order is None:
        raise OrderTermsRequired
    if order.is_new and record is not None and record.status == "failed":
        raise NotCorrectable("It came to nothing at the platform, so there is no order to make.")
    if record is not None and record.currency != order.currency:
        raise NotCorrectable("The two sides name different currencies.")
    if record is None or record.status == "failed":
        after, entries = _failed(order, record, day_of)
    else:
        after, entries = _as_paid(order, record, day_of)
    if after == order:
        raise MismatchOutdated
    records = []
    if record is not None and record.order_no != order.order_no:
        named = _voided(record)
        records = [named | {"after": named["before"] | {"order_no": order.order_no}}]
    return {
        "order": _changed(order, after),
        "records": records,
        "entries": entries,
        "stakes": [[sides.moved_before + sum(abs(entry["amount"]) for entry in entries), order.currency]],
    }


def _changed(before: OrderSide, after: OrderSide) -> Content:
    content: Content = {name: getattr(before, name) for name in _UNCHANGED}
    return content | {
        "before": {name: getattr(before, name) for name in FIELDS},
        "after": {name: getattr(after, name) for name in FIELDS},
    }


def _failed(order: OrderSide, record: RecordSide | None, day_of: DayOf) -> tuple[OrderSide, list[Content]]:
    """Return the order as one that came to nothing, and the entries that take back what it moved."""
    entries: list[Content] = []
    if order.is_paid and order.settled_at is not None:
        day, sign, bucket = _day(order.settled_at, day_of), _sign(order), _BUCKET[Kind(order.kind)]
        entries = [
            _adjusting(order, -sign * order.amount, bucket, day),
            _adjusting(order, sign * order.given_back, _refund_bucket(order), day),
            _adjusting(order, order.fee, "fees", day),
        ]
    upstream_ref = order.upstream_ref if record is None else record.upstream_ref
    after = replace(order, status=Status.FAILED.value, refunded=0, held=0, upstream_ref=upstream_ref, settled_at=None)
    return after, _in_posting_order(entries)


def _as_paid(order: OrderSide, record: RecordSide, day_of: DayOf) -> tuple[OrderSide, list[Content]]:
    """Return the order as the platform says it was paid, and the entries that it takes from where the order is."""
    if record.amount == 0 and (order.kind != Kind.PAID_RESET or record.status == "refunded"):
        raise NotCorrectable("The platform names no amount.")
    sign, bucket = _sign(order), _BUCKET[Kind(order.kind)]
    settled_at = order.settled_at if order.is_paid and order.settled_at else record.occurred_at
    day = _day(settled_at, day_of)
    refunded, given_back = _refunded_after(order, record)
    if given_back > 0 and order.kind in REFUNDABLE:
        giving_back = {"type": refund_type(order.kind), "amount": given_back, "bucket": None, "day": None}
    else:
        giving_back = _adjusting(order, -sign * given_back, _refund_bucket(order), day)
    after = replace(
        order,
        status=_status_of(record.amount, refunded),
        amount=record.amount,
        refunded=refunded,
        held=0,
        upstream_ref=record.upstream_ref,
        settled_at=settled_at,
    )
    if order.is_paid:
        adjusting = _adjusting(order, sign * (record.amount - order.amount), bucket, day)
        return after, _in_posting_order([adjusting, giving_back])
    settling = {"type": settled_type(order.kind), "amount": sign * record.amount, "bucket": bucket, "day": day}
    fee = {"type": FEE_TYPE, "amount": -order.fee, "bucket": "fees", "day": day}
    return after, [settling, *(entry for entry in (fee, giving_back) if entry["amount"])]


def _refunded_after(order: OrderSide, record: RecordSide) -> tuple[int, int]:
    """Return what is refunded of an order that the platform says was paid, and what of it is yet to be given back.

    The latter is negative where refunds are to be taken back, as the platform knows of none.
    Raises: NotCorrectable.
    """
    if record.status == "refunded":
        refunded, given_back = record.amount, record.amount - order.given_back
    elif order.status == Status.REFUNDED:
        refunded, given_back = 0, -order.given_back
    else:
        refunded, given_back = order.refunded, 0
    if order.given_back + given_back > record.amount or refunded > record.amount:
        raise NotCorrectable("More was refunded than the platform says was paid.")
    if record.status == "success" and refunded == record.amount > 0:
        raise NotCorrectable("All that the platform says was paid was refunded here, and it knows of no refund.")
    return refunded, given_back


def _status_of(amount: int, refunded: int) -> str:
    if refunded == 0:
        return Status.SETTLED.value
    return Status.REFUNDED.value if refunded == amount else Status.PARTIALLY_REFUNDED.value


def _sign(order: OrderSide | Content) -> int:
    """Return which way an order's money goes when it settles."""
    kind = order.kind if isinstance(order, OrderSide) else order["kind"]
    return 1 if kind == Kind.RECHARGE else -1


def _refund_bucket(order: OrderSide) -> str:
    kind = Kind(order.kind)
    return "refund" if kind in REFUNDABLE else _BUCKET[kind]


def _adjusting(order: OrderSide, amount: int, bucket: str, day: str) -> Content:
    return {"type": adjusting_type(order.kind), "amount": amount, "bucket": bucket, "day": day}


def adjusting_type(kind: str) -> int:
    """Return the balance type by which an order of a kind is corrected."""
    return _ADJUSTING_TYPE.get(Kind(kind), _ADJUSTING_TYPE_ELSE)


def _in_posting_order(entries: Iterable[Content]) -> list[Content]:
    """Return what moves something, what comes in first: so that only the sum of all needs to be covered."""
    return sorted((entry for entry in entries if entry["amount"]), key=lambda entry: entry["amount"] < 0)


def _day(instant: str, day_of: DayOf) -> str:
    return day_of(parse_rfc3339(instant)).isoformat()


def plan_reversal(
    done: Content, *, correction_id: str, order: OrderSide | None, reason: str, applied_at: datetime, day_of: DayOf
) -> Content:
    """Return what takes a correction back: opposite entries, the order's fields and the records as they were.

    order: as it is now. What was done to it since stands, as long as that fits what it goes back to.
    Raises: ProposalOutdated.
    """
    entries = [
        {
            "type": adjusting_type(done["order"]["kind"]),
            "amount": -entry["amount"],
            "bucket": entry["bucket"] or "refund",
            "day": entry["day"] or day_of(applied_at).isoformat(),
        }
        for entry in done["entries"]
    ]
    return {
        "kind": done["kind"],
        "to": done["to"],
        "reason": reason,
        "reverses": correction_id,
        "order": None if done["order"] is None else _changed_back(done["order"], order),
        "records": [record | {"before": record["after"], "after": record["before"]} for record in done["records"]],
        "new_record": None,
        "entries": _in_posting_order(entries),
        "stakes": done["stakes"],
    }


def _changed_back(done: Content, order: OrderSide | None) -> Content:
    was, became = done["before"], done["after"]
    if order is None:
        raise ProposalOutdated
    if was["status"] in PAID and became["status"] in PAID:
        refunded = order.refunded + was["refunded"] - became["refunded"]
        given_back = order.given_back + was["refunded"] - became["refunded"]
        is_fit = order.is_paid and order.amount == became["amount"] and refunded >= 0
        is_fit = is_fit and max(refunded, given_back) <= was["amount"]
        status = _status_of(was["amount"], refunded)
        after = replace(order, status=status, amount=was["amount"], refunded=refunded, upstream_ref=was["upstream_ref"])
    else:
        is_fit = all(getattr(order, name) == became[name] for name in ("status", "amount", "refunded"))
        back = {**was, "status": Status.FAILED.value, "held": 0, "settled_at": None} if done["is_new"] else was
        after = replace(order, **back)
    if not is_fit:
        raise ProposalOutdated("The order has changed since it was corrected, in a way that does not fit what it was.")
    return _changed(order, after)


def canonical(content: Content) -> bytes:
    """Return the form of a content that its digest is of."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of(content: Content) -> bytes:
    """Return the digest that pins a content."""
    return sha256(canonical(content)).digest()


def needs_approval(content: Content, threshold: str) -> bool:
    """Return whether what is at stake is over a threshold, a decimal string in each currency's own units."""
    return any(minor > Decimal(threshold).scaleb(fraction_digits(currency)) for minor, currency in content["stakes"])
