"""The tables of orders and their history, and how others see their rows. Constraints stand in the migration."""

from typing import Any, Final

import sqlalchemy as sa

from shared.contracts.ledger import OrderActView, OrderView
from shared.money import format_minor
from shared.times import rfc3339

_metadata = sa.MetaData()

orders: Final = sa.Table(
    "orders",
    _metadata,
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("order_no", sa.Text),
    sa.Column("merchant_id", sa.Text),
    sa.Column("holder_type", sa.Text),
    sa.Column("holder_id", sa.Text),
    sa.Column("kind", sa.Text),
    sa.Column("amount", sa.BigInteger),
    sa.Column("fee", sa.BigInteger),
    sa.Column("fee_percent", sa.Numeric),
    sa.Column("fee_source", sa.Text),
    sa.Column("refunded", sa.BigInteger),
    sa.Column("held", sa.BigInteger),
    sa.Column("account_id", sa.BigInteger),
    sa.Column("currency", sa.Text),
    sa.Column("fraction_digits", sa.SmallInteger),
    sa.Column("channel", sa.Text),
    sa.Column("status", sa.Text),
    sa.Column("upstream_ref", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("settled_at", sa.DateTime(timezone=True)),
)

order_history: Final = sa.Table(
    "order_history",
    _metadata,
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("order_id", sa.BigInteger),
    sa.Column("act", sa.Text),
    sa.Column("status_before", sa.Text),
    sa.Column("status_after", sa.Text),
    sa.Column("amount", sa.BigInteger),
    sa.Column("upstream_ref", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("actor_id", sa.Text),
    sa.Column("actor_name", sa.Text),
    sa.Column("actor_type", sa.Text),
    sa.Column("request_id", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("order_digest", sa.LargeBinary),
    sa.Column("digest", sa.LargeBinary),
)


def order_view(row: Any) -> OrderView:
    """Return a row of orders as others know it."""
    return {
        "order_no": row.order_no,
        "merchant_id": row.merchant_id,
        "user_id": order_user_id(row),
        "kind": row.kind,
        "amount": format_minor(row.amount, row.currency),
        "currency": row.currency,
        "channel": row.channel,
        "status": row.status,
        "upstream_ref": row.upstream_ref,
        "fee": format_minor(row.fee, row.currency),
        "refunded": format_minor(row.refunded, row.currency),
        "created_at": rfc3339(row.created_at),
        "settled_at": None if row.settled_at is None else rfc3339(row.settled_at),
    }


def order_user_id(row: Any) -> str | None:
    """Return whose order a row is; None where it is the merchant's own."""
    return row.holder_id if row.holder_type == "user" else None


def order_act_view(row: Any, currency: str) -> OrderActView:
    """Return a row of an order's history as others know it."""
    return {
        "act": row.act,
        "status_before": row.status_before,
        "status_after": row.status_after,
        "amount": None if row.amount is None else format_minor(row.amount, currency),
        "upstream_ref": row.upstream_ref,
        "reason": row.reason,
        "actor_id": row.actor_id,
        "actor_name": row.actor_name,
        "actor_type": row.actor_type,
        "request_id": row.request_id,
        "time": rfc3339(row.created_at),
    }
