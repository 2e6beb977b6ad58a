"""The tables of statements and upstream records, and how others see their rows. Constraints stand in the migration."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from shared.contracts.statements import StatementView, UpstreamRecordView
from shared.money import format_minor
from shared.times import rfc3339

_metadata = sa.MetaData()

statements: Final = sa.Table(
    "statements",
    _metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("channel", sa.Text),
    sa.Column("format", sa.Text),
    sa.Column("filename", sa.Text),
    sa.Column("sha256", sa.LargeBinary),
    sa.Column("size_bytes", sa.BigInteger),
    sa.Column("is_partial", sa.Boolean),
    sa.Column("status", sa.Text),
    sa.Column("chunks", sa.BigInteger),
    sa.Column("attempts", sa.SmallInteger),
    sa.Column("attempted_at", sa.DateTime(timezone=True)),
    sa.Column("percent_done", sa.SmallInteger),
    sa.Column("rows_done", sa.BigInteger),
    sa.Column("rows_new", sa.BigInteger),
    sa.Column("rows_changed", sa.BigInteger),
    sa.Column("rows_refused", sa.BigInteger),
    sa.Column("faults", JSONB),
    sa.Column("first_occurred_at", sa.DateTime(timezone=True)),
    sa.Column("last_occurred_at", sa.DateTime(timezone=True)),
    sa.Column("actor_id", sa.Text),
    sa.Column("actor_name", sa.Text),
    sa.Column("actor_type", sa.Text),
    sa.Column("request_id", sa.Text),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("finished_at", sa.DateTime(timezone=True)),
)

statement_chunks: Final = sa.Table(
    "statement_chunks",
    _metadata,
    sa.Column("statement_id", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("content", sa.LargeBinary),
)

upstream_records: Final = sa.Table(
    "upstream_records",
    _metadata,
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("channel", sa.Text),
    sa.Column("upstream_ref", sa.Text),
    sa.Column("order_no", sa.Text),
    sa.Column("amount", sa.BigInteger),
    sa.Column("fee", sa.BigInteger),
    sa.Column("currency", sa.Text),
    sa.Column("status", sa.Text),
    sa.Column("occurred_at", sa.DateTime(timezone=True)),
    sa.Column("source", sa.Text),
    sa.Column("statement_id", sa.Text),
    sa.Column("line", sa.BigInteger),
    sa.Column("voided_by", sa.Text),
)


def statement_view(row: Any) -> StatementView:
    """Return a row of statements as others know it."""
    is_imported = row.status == "imported"
    return {
        "statement_id": row.id,
        "channel": row.channel,
        "format": row.format,
        "filename": row.filename,
        "sha256": None if row.sha256 is None else row.sha256.hex(),
        "size_bytes": row.size_bytes,
        "partial": row.is_partial,
        "status": row.status,
        "percent_done": row.percent_done,
        "rows_done": row.rows_done,
        "rows_new": row.rows_new,
        "rows_changed": row.rows_changed,
        "rows_unchanged": row.rows_done - row.rows_new - row.rows_changed - row.rows_refused if is_imported else 0,
        "rows_refused": row.rows_refused,
        "faults": row.faults,
        "first_occurred_at": None if row.first_occurred_at is None else rfc3339(row.first_occurred_at),
        "last_occurred_at": None if row.last_occurred_at is None else rfc3339(row.last_occurred_at),
        "operator": row.actor_name,
        "created_at": rfc3339(row.created_at),
        "finished_at": None if row.finished_at is None else rfc3339(row.finished_at),
    }


def upstream_record_view(row: Any) -> UpstreamRecordView:
    """Return a row of upstream records as others know it."""
    return {
        "channel": row.channel,
        "upstream_ref": row.upstream_ref,
        "order_no": row.order_no,
        "amount": format_minor(row.amount, row.currency),
        "fee": format_minor(row.fee, row.currency),
        "currency": row.currency,
        "status": row.status,
        "occurred_at": rfc3339(row.occurred_at),
        "source": row.source,
        "statement_id": row.statement_id,
        "line": row.line,
        "voided": row.voided_by is not None,
    }
