"""Reads of statements and of upstream records. Statements are of all merchants; an order's records are the order's."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.models.entries import microseconds
from services.ledger.models.statements import statement_view, statements, upstream_record_view, upstream_records
from services.ledger.queries.pages import Conditions, instant, plan_for_these_values, position
from shared.contracts.statements import (
    StatementNotFound,
    StatementPage,
    StatementsAreForAll,
    StatementView,
    UpstreamRecordPage,
    UpstreamRecordView,
)
from shared.paging import InvalidCursor, decode_cursor, encode_cursor
from shared.passport import Passport

RECORDS_OF_ORDER_MAX: Final = 200
_AT_MICROSECONDS = microseconds(statements.c.created_at).label("at_microseconds")


def require_all_merchants(passport: Passport) -> None:
    """Refuse whoever does not see all merchants. Raises: StatementsAreForAll."""
    if passport.merchants is not None:
        raise StatementsAreForAll


def list_statements(
    session: Session,
    passport: Passport,
    *,
    limit: int,
    cursor: str | None,
    channel: str | None = None,
    status: str | None = None,
) -> StatementPage:
    """Return one page of statements, newest first; uploads that came to nothing only when they are asked for.

    Raises: StatementsAreForAll, InvalidCursor.
    """
    require_all_merchants(passport)
    c = statements.c
    conditions = [c.status == status] if status is not None else [c.status != "abandoned"]
    if channel is not None:
        conditions.append(c.channel == channel)
    if cursor:
        at, statement_id = decode_cursor(cursor, length=2)
        if type(at) is not int or not 0 <= at < 2**63 or type(statement_id) is not str:
            raise InvalidCursor.of_field("cursor", InvalidCursor.title)
        conditions.append(sa.tuple_(c.created_at, c.id) < (instant(at), statement_id))
    query = sa.select(statements, _AT_MICROSECONDS).where(*conditions)
    rows = session.execute(query.order_by(c.created_at.desc(), c.id.desc()).limit(limit + 1)).all()
    shown = rows[:limit]
    return {
        "items": [statement_view(row) for row in shown],
        "next_cursor": encode_cursor([shown[-1].at_microseconds, shown[-1].id]) if len(rows) > limit else None,
    }


def get_statement(session: Session, passport: Passport, *, statement_id: str) -> StatementView:
    """Return a statement. Raises: StatementsAreForAll, StatementNotFound."""
    require_all_merchants(passport)
    return statement_view(_statement(session, statement_id))


def list_statement_records(
    session: Session,
    passport: Passport,
    *,
    statement_id: str,
    limit: int,
    cursor: str | None,
    upstream_ref: str | None = None,
    order_no: str | None = None,
    status: str | None = None,
) -> UpstreamRecordPage:
    """Return one page of the records that say what this statement said last, in the order in which they came in.

    Raises: StatementsAreForAll, StatementNotFound, InvalidCursor.
    """
    require_all_merchants(passport)
    statement = _statement(session, statement_id)
    plan_for_these_values(session)
    c = upstream_records.c
    conditions = [c.statement_id == statement_id]
    named = {c.upstream_ref: upstream_ref, c.order_no: order_no, c.status: status}
    conditions += [column == value for column, value in named.items() if value is not None]
    after, last = position(cursor, length=2) if cursor else _ends(session, statement, conditions)
    query = sa.select(upstream_records).where(*conditions, c.id > after, c.id <= last).order_by(c.id).limit(limit + 1)
    rows = session.execute(query).all()
    shown = rows[:limit]
    return {
        "items": [upstream_record_view(row) for row in shown],
        "next_cursor": encode_cursor([shown[-1].id, last]) if len(rows) > limit else None,
    }


def _ends(session: Session, statement: Any, conditions: Conditions) -> tuple[int, int]:
    """Return the numbers between which a statement's records are, the first one excluded.

    They are next to each other, or nearly so: each page is a short walk along the key from there on. Their times lead
    to the part of the table that has them, so that no index of a million rows by their statement has to be written.
    """
    c = upstream_records.c
    at = c.occurred_at.between(statement.first_occurred_at, statement.last_occurred_at)
    # A sum: for the column itself PostgreSQL would walk its key from the table's beginning.
    ends = sa.select(sa.func.min(c.id + 0), sa.func.max(c.id + 0)).where(*conditions, at)
    first, last = session.execute(ends).one()
    return (0, 0) if first is None else (first - 1, last)


def _statement(session: Session, statement_id: str) -> Any:
    row = session.execute(sa.select(statements).where(statements.c.id == statement_id)).first()
    if row is None:
        raise StatementNotFound
    return row


def records_of_order(session: Session, order: Any) -> list[UpstreamRecordView]:
    """Return what the order's channel says of it, the last first; the caller has seen to it that they may see it."""
    c = upstream_records.c
    query = (
        sa.select(upstream_records)
        .where(c.order_no == order.order_no, c.channel == order.channel)
        .order_by(c.occurred_at.desc(), c.id.desc())
        .limit(RECORDS_OF_ORDER_MAX)
    )
    return [upstream_record_view(row) for row in session.execute(query)]
