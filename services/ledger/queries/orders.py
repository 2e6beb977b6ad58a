"""Reads of orders. Each is cut to the caller's merchants here, in SQL."""

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.entries import view_of
from services.ledger.domain.filters import LogFilter
from services.ledger.domain.orders import REFUND_TYPES, settled_type
from services.ledger.models.entries import entries, microseconds
from services.ledger.models.mismatches import correction_entries
from services.ledger.models.orders import order_act_view, order_history, order_view, orders
from services.ledger.queries.mismatches import mismatches_of_order
from services.ledger.queries.pages import in_scope, instant, plan_for_these_values, position
from services.ledger.queries.statements import records_of_order
from shared.contracts.ledger import EntryView, OrderActView, OrderDetailView, OrderNotFound, OrderPage
from shared.paging import encode_cursor
from shared.passport import Passport

DETAIL_ROWS_MAX: Final = 200
_AT_MICROSECONDS = microseconds(orders.c.created_at).label("at_microseconds")


def list_orders(
    session: Session,
    passport: Passport,
    wanted: LogFilter,
    *,
    kind: str | None,
    status: str | None,
    channel: str | None,
    limit: int,
    cursor: str | None,
) -> OrderPage:
    """Return one page of orders, newest first. Raises: InvalidCursor."""
    plan_for_these_values(session)
    c = orders.c
    conditions = [c.created_at >= wanted.start, c.created_at < wanted.end]
    conditions += in_scope(passport, c.merchant_id, wanted.merchant_id)
    if wanted.user_id is not None:
        conditions += [c.holder_id == wanted.user_id, c.holder_type == "user"]
    named = {c.kind: kind, c.status: status, c.channel: channel, c.currency: wanted.currency}
    conditions += [column == value for column, value in named.items() if value is not None]
    conditions += _amount_conditions(wanted)
    if cursor:
        at, order_id = position(cursor, length=2)
        conditions.append(sa.tuple_(c.created_at, c.id) < (instant(at), order_id))
    query = sa.select(orders, _AT_MICROSECONDS).where(*conditions)
    rows = session.execute(query.order_by(c.created_at.desc(), c.id.desc()).limit(limit + 1)).all()
    shown = rows[:limit]
    return {
        "items": [order_view(row) for row in shown],
        "next_cursor": encode_cursor([shown[-1].at_microseconds, shown[-1].id]) if len(rows) > limit else None,
    }


def _amount_conditions(wanted: LogFilter) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on amounts: each order's own currency says how many minor units an amount is."""
    scale = sa.func.power(sa.cast(10, sa.Numeric), orders.c.fraction_digits)
    conditions: list[sa.ColumnElement[bool]] = []
    if wanted.min_amount is not None:
        conditions.append(orders.c.amount >= sa.literal(wanted.min_amount, sa.Numeric) * scale)
    if wanted.max_amount is not None:
        conditions.append(orders.c.amount <= sa.literal(wanted.max_amount, sa.Numeric) * scale)
    return conditions


def get_order(session: Session, passport: Passport, *, order_no: str) -> OrderDetailView:
    """Return an order with its entries, history, records of the platform, mismatches. Raises: OrderNotFound."""
    conditions = [orders.c.order_no == order_no, *in_scope(passport, orders.c.merchant_id)]
    order = session.execute(sa.select(orders).where(*conditions)).first()
    if order is None:
        raise OrderNotFound
    return {
        **order_view(order),
        "fee_percent": f"{order.fee_percent.normalize():f}",
        "fee_source": order.fee_source,
        "entries": _entries(session, order),
        "history": _history(session, order),
        "upstream_records": records_of_order(session, order),
        "mismatches": mismatches_of_order(session, order),
    }


def _entries(session: Session, order: Any) -> list[EntryView]:
    query = (
        sa.select(entries, microseconds(entries.c.created_at).label("at_microseconds"))
        .where(entries.c.order_no == order.order_no, entries.c.merchant_id == order.merchant_id)
        .order_by(entries.c.created_at.desc(), entries.c.account_id.desc(), entries.c.version.desc())
        .limit(DETAIL_ROWS_MAX)
    )
    return [view_of(row) for row in session.execute(query)]


def _history(session: Session, order: Any) -> list[OrderActView]:
    query = (
        sa.select(order_history)
        .where(order_history.c.order_id == order.id)
        .order_by(order_history.c.id.desc())
        .limit(DETAIL_ROWS_MAX)
    )
    return [order_act_view(row, order.currency) for row in session.execute(query)]


def count_posted(session: Session, order: Any) -> int:
    """Return how many entries with an order's number have moved what its settlement moves, that settlement included.

    What a correction posted is the order's own: it was reversed, or the order would be settled. Entries that left
    for an archive are not looked at.
    """
    counts = []
    for table in (entries, correction_entries):
        c = table.c
        conditions = [c.order_no == order.order_no, c.merchant_id == order.merchant_id]
        conditions.append(c.type == settled_type(order.kind))
        counts.append(sa.select(sa.func.count()).select_from(table).where(*conditions).scalar_subquery())
    return int(session.execute(sa.select(counts[0] - counts[1])).scalar_one())


def given_back(session: Session, order: Any) -> int:
    """Return what all refunds of an order gave back, less what corrections took back of it again.

    Also those count that were posted before the order was known, and those that left for an archive.
    """
    return given_back_of(session, [order])[0]


def _sum_given_back(table: str, condition: str) -> str:
    return (
        f"(select coalesce(sum(p.amount), 0) from {table} p where p.order_no = o.order_no"
        f" and p.merchant_id = o.merchant_id and p.currency = o.currency and {condition})"
    )


_GIVEN_BACK: Final = sa.text(
    f"""
    select {_sum_given_back("entries", f"p.type in ({', '.join(map(str, sorted(REFUND_TYPES)))})")}
         + {_sum_given_back("archived_refunds", "true")}
         + {_sum_given_back("correction_entries", "p.bucket = 'refund'")}
      from unnest(cast(:order_nos as text[]), cast(:merchant_ids as text[]), cast(:currencies as text[]))
           with ordinality as o(order_no, merchant_id, currency, n)
     order by o.n
    """
)


def given_back_of(session: Session, of_orders: Sequence[Any]) -> list[int]:
    """Return the same of orders, in their order."""
    if not of_orders:
        return []
    asked = {
        "order_nos": [order.order_no for order in of_orders],
        "merchant_ids": [order.merchant_id for order in of_orders],
        "currencies": [order.currency for order in of_orders],
    }
    return [int(amount) for amount in session.scalars(_GIVEN_BACK, asked)]
