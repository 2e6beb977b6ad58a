"""The tables of archives, and how others see their rows."""

from datetime import UTC, date, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.row_digests import content_of
from shared.contracts.archives import ArchiveView
from shared.times import rfc3339

_metadata = sa.MetaData()

archives: Final = sa.Table(
    "archives",
    _metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger),
    sa.Column("month", sa.Date),
    sa.Column("entries", sa.BigInteger),
    sa.Column("accounts", sa.BigInteger),
    sa.Column("parts", sa.BigInteger),
    sa.Column("size_bytes", sa.BigInteger),
    sa.Column("digest", sa.LargeBinary),
    sa.Column("previous_digest", sa.LargeBinary),
    sa.Column("reason", sa.Text),
    sa.Column("actor_id", sa.Text),
    sa.Column("actor_name", sa.Text),
    sa.Column("archived_at", sa.DateTime(timezone=True)),
    sa.Column("row_digest", sa.LargeBinary),
)

archive_parts: Final = sa.Table(
    "archive_parts",
    _metadata,
    sa.Column("archive_id", sa.Text, primary_key=True),
    sa.Column("part", sa.BigInteger, primary_key=True),
    sa.Column("first_account_id", sa.BigInteger),
    sa.Column("last_account_id", sa.BigInteger),
    sa.Column("entries", sa.BigInteger),
    sa.Column("sha256", sa.LargeBinary),
    sa.Column("content", sa.LargeBinary),
)

archive_totals: Final = sa.Table(
    "archive_totals",
    _metadata,
    sa.Column("archive_id", sa.Text),
    sa.Column("quarter", sa.DateTime(timezone=True)),
    sa.Column("merchant_id", sa.Text),
    sa.Column("currency", sa.Text),
    sa.Column("type", sa.SmallInteger),
    sa.Column("counter_account", sa.Text),
    sa.Column("channel", sa.Text),
    sa.Column("entries", sa.BigInteger),
    sa.Column("increase", sa.Numeric),
    sa.Column("decrease", sa.Numeric),
)

archived_openings: Final = sa.Table(
    "archived_openings",
    _metadata,
    sa.Column("account_id", sa.BigInteger, primary_key=True),
    sa.Column("version", sa.BigInteger),
    sa.Column("balance", sa.BigInteger),
    sa.Column("digest", sa.LargeBinary),
    sa.Column("holder", sa.Text),
)

archived_refunds: Final = sa.Table(
    "archived_refunds",
    _metadata,
    sa.Column("merchant_id", sa.Text, primary_key=True),
    sa.Column("order_no", sa.Text, primary_key=True),
    sa.Column("currency", sa.Text, primary_key=True),
    sa.Column("amount", sa.BigInteger),
)


def left_before(session: Session) -> datetime | None:
    """Return the instant before which entries have left the log for archives; None where none have."""
    month: date | None = session.execute(sa.select(sa.func.max(archives.c.month))).scalar_one()
    return None if month is None else datetime(month.year + month.month // 12, month.month % 12 + 1, 1, tzinfo=UTC)


def sealed(one: str) -> str:
    """Return the SQL of the digest over a row of archives, and over what its parts and totals say."""
    return f"""sha256({one}.digest || {content_of(archives, one)}
        || (select coalesce(string_agg(said, '' order by said), '')
              from (select {content_of(archive_parts, "p", but=("content",))} as said
                      from archive_parts p where p.archive_id = {one}.id) as part)
        || (select coalesce(string_agg(said, '' order by said), '')
              from (select {content_of(archive_totals, "t")} as said
                      from archive_totals t where t.archive_id = {one}.id) as total))"""


def archive_view(row: Any) -> ArchiveView:
    """Return a row of archives as others know it."""
    return {
        "archive_id": row.id,
        "number": row.number,
        "month": f"{row.month:%Y-%m}",
        "entries": row.entries,
        "accounts": row.accounts,
        "parts": row.parts,
        "size_bytes": row.size_bytes,
        "digest": row.digest.hex(),
        "reason": row.reason,
        "operator": row.actor_name,
        "archived_at": rfc3339(row.archived_at),
    }
