"""The tables of accounts, entries and their sums, as reads know them. Writes stand in `posting_sql`."""

from typing import Any, Final

import sqlalchemy as sa

from services.ledger.domain.entries import time_text
from shared.contracts.ledger import AccountView
from shared.money import format_minor

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
    sa.Column("channel", sa.Text, primary_key=True),
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
    sa.Column("channel", sa.Text),
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
