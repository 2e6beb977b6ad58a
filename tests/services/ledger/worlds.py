"""Small worlds of orders and of a payment platform's records, for tests of reconciliation; written as rows.

Orders of past days cannot be made by use cases, which know only this instant: that a row is what an order's life leaves
behind is shown where orders are tested.
"""

from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.usecases.reconciliations import create_reconciliation
from shared.contracts.reconciliations import ReconciliationView
from shared.passport import Passport
from tests.conftest import AURORA, person

ALICE = person("Alice", "administrator", None)
CHANNEL = "alipay"

_ORDER = sa.text(
    """
    insert into orders (order_no, merchant_id, holder_type, holder_id, kind, amount, refunded, held, currency,
        fraction_digits, channel, status, settled_at)
    values (:order_no, :merchant_id, 'user', 'user-1', :kind, :amount, :refunded, 0, :currency, 2, :channel, :status,
        :settled_at)
    """
)
_RECORD = sa.text(
    """
    insert into upstream_records (channel, upstream_ref, order_no, amount, currency, status, occurred_at, source,
        voided_by)
    values (:channel, :upstream_ref, :order_no, :amount, :currency, :status, :occurred_at, 'statement', :voided_by)
    """
)


def add_channel(session: Session, code: str = CHANNEL) -> None:
    """Register a channel."""
    session.execute(
        sa.text("insert into channels (code, name, kind) values (:code, :code, 'statement')"), {"code": code}
    )


def add_order(session: Session, order_no: str, *, at: datetime | None = None, **fields: Any) -> dict[str, Any]:
    """Write an order, a recharge of 10.00 CNY that is settled at `at`, or pending without; fields say otherwise."""
    order = {
        "order_no": order_no,
        "merchant_id": AURORA,
        "kind": "recharge",
        "amount": 1000,
        "refunded": 0,
        "currency": "CNY",
        "channel": CHANNEL,
        "status": "pending" if at is None else "settled",
        "settled_at": at,
    } | fields
    session.execute(_ORDER, order)
    return order


def add_record(session: Session, upstream_ref: str, order_no: str | None, *, at: datetime, **fields: Any) -> Any:
    """Write what the platform says of a payment: a success of 10.00 CNY, unless fields say otherwise."""
    record = {
        "upstream_ref": upstream_ref,
        "order_no": order_no,
        "channel": CHANNEL,
        "amount": 1000,
        "currency": "CNY",
        "status": "success",
        "occurred_at": at,
        "voided_by": None,
    } | fields
    session.execute(_RECORD, record)
    return record


def reconcile(
    session: Session, day: date, *, channel: str = CHANNEL, passport: Passport = ALICE, **terms: Any
) -> ReconciliationView:
    """Reconcile a day of UTC without a grace, unless the terms say otherwise."""
    return create_reconciliation(
        session, passport, channel=channel, day=day, **{"zone_name": "UTC", "grace_seconds": 0} | terms
    )


def mismatches(session: Session) -> dict[tuple[str, str | None, str | None], Any]:
    """Return all mismatches by what they are about: kind, order and record."""
    rows = session.execute(sa.text("select * from mismatches")).all()
    return {(row.kind, row.order_no, row.upstream_ref): row for row in rows}


def open_ones(session: Session) -> set[tuple[str, str | None, str | None]]:
    """Return what the open mismatches are about."""
    return {subject for subject, row in mismatches(session).items() if row.status == "open"}
