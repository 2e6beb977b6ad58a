"""Reads of what platforms answered when they were asked, raw; cut to the caller's merchants by their orders."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.models.callbacks import upstream_answers
from services.ledger.models.orders import orders
from services.ledger.queries.pages import in_scope, position
from shared.contracts.channels import UpstreamAnswerPage, UpstreamAnswerView
from shared.contracts.ledger import OrderNotFound
from shared.paging import encode_cursor
from shared.passport import Passport
from shared.times import rfc3339

BODY_CHARACTERS_MAX: Final = 16_384


def list_upstream_answers(
    session: Session, passport: Passport, *, order_no: str, limit: int, cursor: str | None
) -> UpstreamAnswerPage:
    """Return one page of what the platform answered about an order, newest first.

    Raises, in order: OrderNotFound, InvalidCursor.
    """
    conditions = [orders.c.order_no == order_no, *in_scope(passport, orders.c.merchant_id)]
    if session.execute(sa.select(orders.c.id).where(*conditions)).first() is None:
        raise OrderNotFound
    c = upstream_answers.c
    query = sa.select(upstream_answers).where(c.order_no == order_no)
    if cursor:
        [answer_id] = position(cursor, length=1)
        query = query.where(c.id < answer_id)
    rows = session.execute(query.order_by(c.id.desc()).limit(limit + 1)).all()
    shown = rows[:limit]
    return {
        "items": [_view(row) for row in shown],
        "next_cursor": encode_cursor([shown[-1].id]) if len(rows) > limit else None,
    }


def _view(row: Any) -> UpstreamAnswerView:
    text = bytes(row.body).decode(errors="replace").replace("\0", "\ufffd")
    return {
        "channel": row.channel,
        "asked_for": row.asked_for,
        "status_code": row.status_code,
        "body": text[:BODY_CHARACTERS_MAX],
        "fault": row.fault,
        "request_id": row.request_id,
        "time": rfc3339(row.asked_at),
    }
