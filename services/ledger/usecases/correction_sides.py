"""Both sides of a mismatch as they are now, read for a correction: our order, the record, and the order to be made."""

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.channels import fee_of
from services.ledger.domain.corrections import OrderSide, RecordSide, Sides
from services.ledger.domain.mismatches import Kind
from services.ledger.domain.orders import REFUNDABLE, Status, check_order
from services.ledger.domain.thresholds import Threshold
from services.ledger.matching_sql import SPEAKS_FIRST
from services.ledger.models.orders import order_user_id, orders
from services.ledger.models.statements import upstream_records
from services.ledger.queries.orders import given_back_of
from services.ledger.usecases.orders import rate_in_force, refuse_posted
from shared.copies import require_merchant
from shared.money import format_minor
from shared.passport import Passport
from shared.times import rfc3339


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """By which settings corrections go: the calendar's zone, and from what amount on what needs more eyes.

    approval_threshold: the parameter `ledger.correction_approval_threshold`, a decimal string.
    large_change: the parameter `ledger.large_change_threshold`.
    default_fee_percent: the parameter `ledger.order_fee_percent`, for an order that a correction makes.
    """

    zone_name: str
    approval_threshold: str
    large_change: Threshold
    default_fee_percent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOrder:
    """Whose the order is that a correction makes, where we have none."""

    merchant_id: str | None = None
    user_id: str | None = None
    kind: str | None = None


NO_TERMS: Final = NewOrder()


def sides_of(session: Session, mismatch: Any, *, is_locked: bool) -> Sides:
    """Return both sides of a mismatch as they are now."""
    return read_sides(session, [mismatch], is_locked=is_locked)[0]


def read_sides(session: Session, mismatches: Sequence[Any], *, is_locked: bool) -> list[Sides]:
    """Return both sides of mismatches as they are now, in their order.

    Locks, where that is asked for: the orders, then the records, each by ascending id.
    """
    # A correction gives an order the mismatch's own number, where the record has none.
    places = [(mismatch.order_no or mismatch.id, mismatch.channel) for mismatch in mismatches]
    of_order = read_orders(session, places, is_locked=is_locked)
    c = upstream_records.c
    query = sa.select(upstream_records).where(c.id.in_([m.record_id for m in mismatches if m.record_id is not None]))
    query = query.order_by(c.id).with_for_update() if is_locked else query
    of_record = {row.id: _record_side(row) for row in session.execute(query)}
    order_nos, channels = ([place[n] for place in dict.fromkeys(places)] for n in (0, 1))
    beside = {
        (row.order_no, row.channel): row
        for row in session.execute(_BESIDE, {"order_nos": order_nos, "channels": channels})
    }
    return [
        Sides(
            kind=mismatch.kind,
            order=of_order.get(place),
            record=of_record.get(mismatch.record_id),
            speaker_id=beside[place].speaker_id,
            moved_before=int(beside[place].moved_before),
        )
        for mismatch, place in zip(mismatches, places, strict=True)
    ]


# Of an order: the record that speaks for it, and what its corrections that stand have moved.
_BESIDE: Final = sa.text(
    f"""
    select w.order_no, w.channel,
           (select x.id from upstream_records x
             where x.channel = w.channel and x.order_no = w.order_no and x.voided_by is null
             order by {SPEAKS_FIRST} limit 1) as speaker_id,
           (select coalesce(sum(abs((entry ->> 'amount')::bigint)), 0)
              from mismatches m
                   join corrections c on c.mismatch_id = m.id,
                   jsonb_array_elements(c.content -> 'entries') as entry
             where m.channel = w.channel and (m.order_no = w.order_no or m.id = w.order_no)
               and c.status = 'applied' and c.reversal_of is null
               and c.content -> 'order' ->> 'order_no' = w.order_no) as moved_before
      from unnest(cast(:order_nos as text[]), cast(:channels as text[])) as w(order_no, channel)
    """
)


def order_side(session: Session, order_no: str, channel: str, *, is_locked: bool) -> OrderSide | None:
    """Return an order of a channel as it is now."""
    return read_orders(session, [(order_no, channel)], is_locked=is_locked).get((order_no, channel))


def read_orders(
    session: Session, places: Collection[tuple[str, str]], *, is_locked: bool
) -> dict[tuple[str, str], OrderSide]:
    """Return the orders of these numbers and channels as they are now, by number and channel."""
    query = sa.select(orders).where(sa.tuple_(orders.c.order_no, orders.c.channel).in_(list(dict.fromkeys(places))))
    rows = session.execute(query.order_by(orders.c.id).with_for_update() if is_locked else query).all()
    refundable = [row for row in rows if row.kind in REFUNDABLE]
    back = dict(zip((row.id for row in refundable), given_back_of(session, refundable), strict=True))
    return {(row.order_no, row.channel): _order_side(row, back.get(row.id, row.refunded)) for row in rows}


def _order_side(row: Any, given_back: int) -> OrderSide:
    return OrderSide(
        order_no=row.order_no,
        merchant_id=row.merchant_id,
        user_id=order_user_id(row),
        kind=row.kind,
        currency=row.currency,
        channel=row.channel,
        status=row.status,
        amount=row.amount,
        refunded=row.refunded,
        given_back=given_back,
        held=row.held,
        fee=row.fee,
        fee_percent=str(row.fee_percent),
        fee_source=row.fee_source,
        upstream_ref=row.upstream_ref,
        settled_at=None if row.settled_at is None else rfc3339(row.settled_at),
    )


def _record_side(row: Any) -> RecordSide:
    return RecordSide(
        id=row.id,
        upstream_ref=row.upstream_ref,
        order_no=row.order_no,
        status=row.status,
        amount=row.amount,
        fee=row.fee,
        currency=row.currency,
        occurred_at=rfc3339(row.occurred_at),
        voided_by=row.voided_by,
    )


# An order that a correction made fails when that is reversed, and is there for good, whoever it was made for.
_WAS_MADE: Final = sa.text(
    """
    select exists (
        select from mismatches m join corrections c on c.mismatch_id = m.id
         where (m.order_no = :order_no or m.id = :order_no) and c.status = 'reversed'
           and c.content -> 'order' ->> 'order_no' = :order_no and (c.content -> 'order' ->> 'is_new')::boolean)
    """
)


def number_to_make(session: Session, mismatch: Any, order: OrderSide | None, new_order: NewOrder) -> str | None:
    """Return the number of the order that is to be made for a record; None where the one that is there is meant.

    One that a correction made for somebody else, and that failed when it was reversed, is not: the record is given
    another number.
    """
    if order is None:
        return str(mismatch.order_no or mismatch.id) if mismatch.kind == Kind.MISSING_LOCAL else None
    is_named = new_order.merchant_id is not None and new_order.kind is not None
    is_same = (new_order.merchant_id, new_order.user_id, new_order.kind) == (
        order.merchant_id,
        order.user_id,
        order.kind,
    )
    if order.status != Status.FAILED or not is_named or is_same:
        return None
    if not session.scalar(_WAS_MADE, {"order_no": order.order_no}):
        return None
    c = orders.c
    own = sa.select(c.order_no).where(
        sa.or_(c.order_no == mismatch.id, c.order_no.startswith(f"{mismatch.id}-", autoescape=True))
    )
    taken = set(session.scalars(own))
    numbers = itertools.chain([mismatch.id], (f"{mismatch.id}-{n}" for n in itertools.count(2)))
    return str(next(number for number in numbers if number not in taken))


def order_to_make(
    session: Session,
    passport: Passport,
    mismatch: Any,
    record: RecordSide | None,
    new_order: NewOrder,
    terms: Terms,
    *,
    order_no: str,
) -> OrderSide | None:
    """Return the order that a record of a payment stands for, as it will be made.

    Raises, in order: MerchantNotFound; InvalidRequest; OrderNumberTaken where a balance change was posted for it.
    """
    if record is None or new_order.merchant_id is None or new_order.kind is None:
        return None
    require_merchant(session, passport, new_order.merchant_id)
    new = check_order(
        order_no=order_no,
        merchant_id=new_order.merchant_id,
        user_id=new_order.user_id,
        kind=new_order.kind,
        amount=format_minor(record.amount, record.currency),
        currency=record.currency,
        channel=mismatch.channel,
    )
    percent, source = rate_in_force(session, mismatch.channel, terms.default_fee_percent)
    order = OrderSide(
        order_no=str(new.change.order_no),
        merchant_id=new_order.merchant_id,
        user_id=new_order.user_id,
        kind=new.kind.value,
        currency=record.currency,
        channel=mismatch.channel,
        status="pending",
        amount=record.amount,
        refunded=0,
        given_back=0,
        held=0,
        fee=fee_of(record.amount, percent),
        fee_percent=str(percent),
        fee_source=source,
        upstream_ref=None,
        settled_at=None,
        is_new=True,
    )
    refuse_posted(session, order)
    return order
