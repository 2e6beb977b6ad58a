"""Reads of corrections. Each is cut to the caller's merchants here, in SQL."""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.balance_types import label
from services.ledger.domain.entries import entry_id
from services.ledger.models.entries import microseconds
from services.ledger.models.mismatches import correction_entries, corrections, mismatches
from services.ledger.queries.pages import Conditions, in_scope, instant, plan_for_these_values
from shared.contracts.mismatches import (
    ChangedFieldView,
    CorrectionContentView,
    CorrectionEntryView,
    CorrectionNotFound,
    CorrectionPage,
    CorrectionView,
)
from shared.money import format_minor
from shared.paging import InvalidCursor, decode_cursor, encode_cursor
from shared.passport import Passport
from shared.times import rfc3339

_MONEY_FIELDS = frozenset({"amount", "refunded", "held", "fee"})
_AT_MICROSECONDS = microseconds(corrections.c.created_at).label("at_microseconds")
_MERCHANT_ID = sa.func.coalesce(corrections.c.content["order"]["merchant_id"].astext, mismatches.c.merchant_id)


def list_corrections(
    session: Session,
    passport: Passport,
    *,
    status: Sequence[str],
    to: str | None,
    mismatch_id: str | None,
    merchant_id: str | None,
    limit: int,
    cursor: str | None,
) -> CorrectionPage:
    """Return one page of corrections, newest first. Raises: InvalidCursor."""
    plan_for_these_values(session)
    c = corrections.c
    conditions = _scope(passport, merchant_id)
    if status:
        conditions.append(c.status.in_(status))
    if to is not None:
        conditions.append(c.direction == to)
    if mismatch_id is not None:
        conditions.append(c.mismatch_id == mismatch_id)
    if cursor:
        conditions.append(sa.tuple_(c.created_at, c.id) < time_and_id(cursor))
    rows = _rows(session, conditions, limit + 1)
    shown = rows[:limit]
    return {
        "items": _views(session, shown),
        "next_cursor": encode_cursor([shown[-1].at_microseconds, shown[-1].id]) if len(rows) > limit else None,
    }


def time_and_id(cursor: str) -> tuple[Any, str]:
    """Return the place of a cursor that holds a time and a text. Raises: InvalidCursor."""
    at, text = decode_cursor(cursor, length=2)
    if type(at) is not int or type(text) is not str:
        raise InvalidCursor.of_field("cursor", InvalidCursor.title)
    return instant(at), text


def get_correction(session: Session, passport: Passport, *, correction_id: str) -> CorrectionView:
    """Return a correction. Raises: CorrectionNotFound."""
    rows = _rows(session, [corrections.c.id == correction_id, *_scope(passport, None)], 1)
    if not rows:
        raise CorrectionNotFound
    return _views(session, rows)[0]


def corrections_of(session: Session, passport: Passport, mismatch_id: str, *, limit: int) -> list[CorrectionView]:
    """Return the corrections of a mismatch that the caller may see, newest first."""
    return _views(session, _rows(session, [corrections.c.mismatch_id == mismatch_id, *_scope(passport, None)], limit))


def _scope(passport: Passport, merchant_id: str | None) -> Conditions:
    """Return the conditions of what the caller sees: a correction is of its order's merchant, where it has an order.

    An order may have been made for one merchant, taken back, and made for another.
    """
    return in_scope(passport, _MERCHANT_ID, merchant_id) + in_scope(passport, mismatches.c.merchant_id)


def _rows(session: Session, conditions: Conditions, limit: int) -> Sequence[Any]:
    query = (
        sa.select(corrections, _MERCHANT_ID.label("merchant_id"), _AT_MICROSECONDS)
        .join(mismatches, mismatches.c.id == corrections.c.mismatch_id)
        .where(*conditions)
        .order_by(corrections.c.created_at.desc(), corrections.c.id.desc())
        .limit(limit)
    )
    return session.execute(query).all()


def _views(session: Session, rows: Sequence[Any]) -> list[CorrectionView]:
    posted: dict[str, list[str]] = {}
    c = correction_entries.c
    query = sa.select(c.correction_id, c.account_id, c.version).where(c.correction_id.in_([row.id for row in rows]))
    for row in session.execute(query.order_by(c.correction_id, c.version)):
        posted.setdefault(row.correction_id, []).append(entry_id(row.account_id, row.version))
    return [_view(row, posted.get(row.id, [])) for row in rows]


def _view(row: Any, posted: Sequence[str]) -> CorrectionView:
    return {
        "id": row.id,
        "mismatch_id": row.mismatch_id,
        "merchant_id": row.merchant_id,
        "to": row.direction,
        "status": row.status,
        "reason": row.reason,
        "reversal_of": row.reversal_of,
        "content_sha256": row.content_sha256.hex(),
        "proposed_by": row.proposed_by,
        "proposed_by_name": row.proposed_by_name,
        "decided_by": row.decided_by,
        "decided_by_name": row.decided_by_name,
        "decided_reason": row.decided_reason,
        "created_at": rfc3339(row.created_at),
        "decided_at": None if row.decided_at is None else rfc3339(row.decided_at),
        "applied_at": None if row.applied_at is None else rfc3339(row.applied_at),
        **content_view(row.content, posted),
    }


def content_view(content: dict[str, Any], posted: Iterable[str] = ()) -> CorrectionContentView:
    """Return what a correction changes, as others know it.

    posted: the ids of its entries that count for a report, in their order. An ordinary refund is not among them.
    """
    order = content["order"]
    ids = iter(posted)
    new_record = content["new_record"]
    return {
        "order_no": order["order_no"] if order else new_record["order_no"] if new_record else None,
        "is_new_order": bool(order and order["is_new"]),
        "order": changed_fields(order["before"], order["after"], order["currency"]) if order else [],
        "records": [_record_view(record) for record in content["records"]],
        "new_record": None if new_record is None else said(new_record, new_record["currency"]),
        "entries": [
            _entry_view(entry, order, next(ids, None) if entry["bucket"] is not None else None)
            for entry in content["entries"]
        ],
    }


def _record_view(record: dict[str, Any]) -> dict[str, Any]:
    currency = record["before"]["currency"]
    return {
        "upstream_ref": record["upstream_ref"],
        "changes": changed_fields(record["before"], record["after"], currency),
    }


def changed_fields(before: dict[str, Any], after: dict[str, Any], currency: str) -> list[ChangedFieldView]:
    """Return the fields that are another after than before."""
    was, became = said(before, currency), said(after, currency)
    return [
        {"field": field, "before": was[field], "after": became[field]}
        for field in before
        if before[field] != after[field]
    ]


def said(side: dict[str, Any], currency: str) -> dict[str, str | None]:
    """Return fields as text, amounts as decimal strings."""
    return {field: _text(field, value, currency) for field, value in side.items()}


def _text(field: str, value: Any, currency: str) -> str | None:
    if value is None:
        return None
    if field in _MONEY_FIELDS:
        return format_minor(value, currency)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _entry_view(entry: dict[str, Any], order: dict[str, Any], posted: str | None) -> CorrectionEntryView:
    return {
        "entry_id": posted,
        "merchant_id": order["merchant_id"],
        "user_id": order["user_id"],
        "type": entry["type"],
        "type_name": label(entry["type"])[0],
        "amount": format_minor(entry["amount"], order["currency"]),
        "currency": order["currency"],
        "balance": None,
        "bucket": entry["bucket"],
        "date": entry["day"],
    }
