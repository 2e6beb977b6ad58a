"""The ledger's tables as its reads know them. Constraints stand in the migration, writes in `statements`."""

from typing import Any, Final

import sqlalchemy as sa

from services.ledger.domain.entries import time_text
from shared.contracts.ledger import AccountView, OrderActView, OrderView
from shared.money import format_minor
from shared.times import rfc3339

_metadata = sa.MetaData()

accounts: Final = sa.Table(
    "accounts",
    _metadata,
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("merchant_id", sa.Text),
    sa.Column("holder_type", sa.Text),
    sa.Column("holder_id", sa.Text),
    sa.Column("currency", sa.Text),
    sa.Column("wallet", sa.Text),
    sa.Column("balance", sa.BigInteger),
    sa.Column("held", sa.BigInteger),
    sa.Column("version", sa.BigInteger),
    sa.Column("updated_at", sa.DateTime(timezone=True)),
)

entries: Final = sa.Table(
    "entries",
    _metadata,
    sa.Column("account_id", sa.BigInteger, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("amount", sa.BigInteger),
    sa.Column("balance_after", sa.BigInteger),
    sa.Column("type", sa.SmallInteger),
    sa.Column("merchant_id", sa.Text),
    sa.Column("holder_type", sa.Text),
    sa.Column("holder_id", sa.Text),
    sa.Column("currency", sa.Text),
    sa.Column("order_no", sa.Text),
    sa.Column("channel", sa.Text),
    sa.Column("note", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("actor_name", sa.Text),
    sa.Column("actor_type", sa.Text),
)

hourly_totals: Final = sa.Table(
    "hourly_totals",
    _metadata,
    sa.Column("hour", sa.DateTime(timezone=True), primary_key=True),
    sa.Column("merchant_id", sa.Text, primary_key=True),
    sa.Column("currency", sa.Text, primary_key=True),
    sa.Column("type", sa.SmallInteger, primary_key=True),
    sa.Column("entries", sa.BigInteger),
    sa.Column("increase", sa.Numeric),
    sa.Column("decrease", sa.Numeric),
)

posting_deltas: Final = sa.Table(
    "posting_deltas",
    _metadata,
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("hour", sa.DateTime(timezone=True)),
    sa.Column("merchant_id", sa.Text),
    sa.Column("currency", sa.Text),
    sa.Column("type", sa.SmallInteger),
    sa.Column("counter_account", sa.Text),
    sa.Column("entries", sa.BigInteger),
    sa.Column("increase", sa.Numeric),
    sa.Column("decrease", sa.Numeric),
)

system_account_totals: Final = sa.Table(
    "system_account_totals",
    _metadata,
    sa.Column("merchant_id", sa.Text, primary_key=True),
    sa.Column("counter_account", sa.Text, primary_key=True),
    sa.Column("currency", sa.Text, primary_key=True),
    sa.Column("balance", sa.Numeric),
)

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
)


def microseconds(instant: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    """Return an instant as microseconds since 1970, as `domain.entries` counts them."""
    return sa.cast(sa.func.extract("epoch", instant) * 1_000_000, sa.BigInteger)


def account_view(row: Any) -> AccountView:
    """Return a row of accounts, with `at_microseconds` for its time, as others know it."""
    return {
        "user_id": row.holder_id if row.holder_type == "user" else None,
        "holder_type": row.holder_type,
        "holder_id": row.holder_id,
        "merchant_id": row.merchant_id,
        "currency": row.currency,
        "wallet": row.wallet,
        "balance": format_minor(row.balance, row.currency),
        "held": format_minor(row.held, row.currency),
        "available": format_minor(row.balance - row.held, row.currency),
        "version": row.version,
        "updated_at": time_text(row.at_microseconds),
    }


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
