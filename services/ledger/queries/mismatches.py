"""Reads of mismatches. Each is cut to the caller's merchants here, in SQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.filters import minor_bound
from services.ledger.models.entries import microseconds
from services.ledger.models.mismatches import (
    mismatch_act_view,
    mismatch_history,
    mismatch_view,
    mismatches,
    side_view,
)
from services.ledger.queries.corrections import corrections_of, time_and_id
from services.ledger.queries.pages import Conditions, in_scope, plan_for_these_values
from shared.contracts.mismatches import (
    MismatchDetailView,
    MismatchGroupPage,
    MismatchGroupView,
    MismatchNotFound,
    MismatchPage,
    MismatchView,
)
from shared.money import format_minor
from shared.paging import InvalidCursor, decode_cursor, encode_cursor
from shared.passport import Passport
from shared.times import rfc3339

DETAIL_ROWS_MAX: Final = 200
_AT_MICROSECONDS = microseconds(mismatches.c.opened_at).label("at_microseconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class MismatchFilter:
    """Which mismatches are meant. `day` is the day that they are of; the range is of when they were opened."""

    kinds: Sequence[str] = ()
    statuses: Sequence[str] = ()
    channel: str | None = None
    day: date | None = None
    opened_from: datetime | None = None
    opened_to: datetime | None = None
    merchant_id: str | None = None
    order_no: str | None = None
    upstream_ref: str | None = None
    currency: str | None = None
    min_difference: Decimal | None = None


def list_mismatches(
    session: Session, passport: Passport, wanted: MismatchFilter, *, limit: int, cursor: str | None
) -> MismatchPage:
    """Return one page of mismatches, the last opened first. Raises: InvalidCursor."""
    plan_for_these_values(session)
    conditions = _conditions(session, passport, wanted)
    c = mismatches.c
    if cursor:
        conditions.append(sa.tuple_(c.opened_at, c.id) < time_and_id(cursor))
    query = sa.select(mismatches, _AT_MICROSECONDS).where(*conditions)
    rows = session.execute(query.order_by(c.opened_at.desc(), c.id.desc()).limit(limit + 1)).all()
    shown = rows[:limit]
    return {
        "items": [mismatch_view(row) for row in shown],
        "next_cursor": encode_cursor([shown[-1].at_microseconds, shown[-1].id]) if len(rows) > limit else None,
    }


def _conditions(session: Session, passport: Passport, wanted: MismatchFilter) -> Conditions:
    c = mismatches.c
    conditions = in_scope(passport, c.merchant_id, wanted.merchant_id)
    if wanted.kinds:
        conditions.append(c.kind.in_(wanted.kinds))
    if wanted.statuses:
        conditions.append(c.status.in_(wanted.statuses))
    if wanted.opened_from is not None:
        conditions.append(c.opened_at >= wanted.opened_from)
    if wanted.opened_to is not None:
        conditions.append(c.opened_at < wanted.opened_to)
    exact = {
        c.channel: wanted.channel,
        c.day: wanted.day,
        c.order_no: wanted.order_no,
        c.upstream_ref: wanted.upstream_ref,
        c.currency: wanted.currency,
    }
    conditions += [column == value for column, value in exact.items() if value is not None]
    if wanted.min_difference is not None:
        conditions.append(_at_least(session, wanted.min_difference))
    return conditions


def _at_least(session: Session, least: Decimal) -> sa.ColumnElement[bool]:
    """Return the condition on the absolute difference, for each currency in its own minor units."""
    c = mismatches.c
    by_currency = [
        sa.and_(
            c.currency == currency,
            sa.func.abs(c.difference) >= minor_bound(least, currency, ROUND_CEILING),
        )
        for currency in session.scalars(sa.select(c.currency).distinct())
    ]
    return sa.or_(sa.false(), *by_currency)


def get_mismatch(session: Session, passport: Passport, *, mismatch_id: str) -> MismatchDetailView:
    """Return a mismatch with both sides, its history and its corrections. Raises: MismatchNotFound."""
    conditions = [mismatches.c.id == mismatch_id, *in_scope(passport, mismatches.c.merchant_id)]
    row = session.execute(sa.select(mismatches).where(*conditions)).first()
    if row is None:
        raise MismatchNotFound
    history = (
        sa.select(mismatch_history)
        .where(mismatch_history.c.mismatch_id == mismatch_id)
        .order_by(mismatch_history.c.id.desc())
        .limit(DETAIL_ROWS_MAX)
    )
    return {
        **mismatch_view(row),
        "local": side_view(row.local, row.currency),
        "upstream": side_view(row.upstream, row.currency),
        "history": [mismatch_act_view(act) for act in session.execute(history)],
        "corrections": corrections_of(session, passport, mismatch_id, limit=DETAIL_ROWS_MAX),
    }


def mismatches_of_order(session: Session, order: Any) -> list[MismatchView]:
    """Return the mismatches of an order that the caller may see, the last opened first."""
    c = mismatches.c
    query = (
        sa.select(mismatches)
        .where(c.order_no == order.order_no, c.channel == order.channel)
        .order_by(c.opened_at.desc(), c.id.desc())
        .limit(DETAIL_ROWS_MAX)
    )
    return [mismatch_view(row) for row in session.execute(query)]


def list_mismatch_groups(
    session: Session, passport: Passport, wanted: MismatchFilter, *, limit: int, cursor: str | None
) -> MismatchGroupPage:
    """Return one page of groups of alike mismatches, the largest first. Raises: InvalidCursor."""
    plan_for_these_values(session)
    c = mismatches.c
    alike = (c.channel, c.kind, c.differing, c.currency, c.difference)
    groups = (
        sa.select(
            *alike,
            sa.func.count().label("count"),
            sa.func.sum(c.difference).label("sum"),
            sa.func.min(c.opened_at).label("first_opened_at"),
            sa.func.max(c.opened_at).label("last_opened_at"),
        )
        .where(*_conditions(session, passport, wanted))
        .group_by(*alike)
        .subquery()
    )
    g = groups.c
    place = (-g.count, g.channel, g.kind, g.differing, g.currency, g.difference)
    query = sa.select(groups)
    if cursor:
        query = query.where(sa.tuple_(*place) > sa.tuple_(*_group_place(cursor)))
    rows = session.execute(query.order_by(*place).limit(limit + 1)).all()
    shown = rows[:limit]
    return {
        "items": [_group_view(row) for row in shown],
        "next_cursor": encode_cursor(_place_of(shown[-1])) if len(rows) > limit else None,
    }


def _place_of(row: Any) -> list[Any]:
    return [-row.count, row.channel, row.kind, list(row.differing), row.currency, row.difference]


def _group_place(cursor: str) -> list[Any]:
    place = decode_cursor(cursor, length=6)
    numbers, words, fields = (place[0], place[5]), (place[1], place[2], place[4]), place[3]
    is_ours = (
        all(type(number) is int and abs(number) < 2**63 for number in numbers)
        and all(type(word) is str for word in words)
        and isinstance(fields, list)
        and all(type(field) is str and "\x00" not in field for field in fields)
    )
    if not is_ours:
        raise InvalidCursor.of_field("cursor", InvalidCursor.title)
    types: list[Any] = [sa.BigInteger, sa.Text, sa.Text, mismatches.c.differing.type, sa.Text, sa.BigInteger]
    return [sa.cast(sa.literal(value, kind), kind) for value, kind in zip(place, types, strict=True)]


def _group_view(row: Any) -> MismatchGroupView:
    return {
        "channel": row.channel,
        "kind": row.kind,
        "differing": list(row.differing),
        "currency": row.currency,
        "difference": format_minor(row.difference, row.currency),
        "count": row.count,
        "sum": format_minor(int(row.sum), row.currency),
        "first_opened_at": rfc3339(row.first_opened_at),
        "last_opened_at": rfc3339(row.last_opened_at),
    }
