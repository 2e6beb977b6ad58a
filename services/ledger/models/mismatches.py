"""The tables of mismatches, their history, and their corrections.

Constraints stand in the migrations; how mismatches are found and written stands in `matching_sql`.
"""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from shared.contracts.mismatches import DifferingFieldView, MismatchActView, MismatchView
from shared.money import format_minor
from shared.times import rfc3339

_metadata = sa.MetaData()

# What both sides say in minor units. The rest is text, or a time as PostgreSQL writes it.
AMOUNTS: Final = frozenset({"amount", "fee", "refunded"})

mismatches: Final = sa.Table(
    "mismatches",
    _metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("channel", sa.Text),
    sa.Column("day", sa.Date),
    sa.Column("kind", sa.Text),
    sa.Column("status", sa.Text),
    sa.Column("order_no", sa.Text),
    sa.Column("merchant_id", sa.Text),
    sa.Column("record_id", sa.BigInteger),
    sa.Column("upstream_ref", sa.Text),
    sa.Column("local", JSONB(none_as_null=True)),
    sa.Column("upstream", JSONB(none_as_null=True)),
    sa.Column("differing", ARRAY(sa.Text)),
    sa.Column("currency", sa.Text),
    sa.Column("difference", sa.BigInteger),
    sa.Column("resolution", sa.Text),
    sa.Column("version", sa.BigInteger),
    sa.Column("opened_at", sa.DateTime(timezone=True)),
    sa.Column("updated_at", sa.DateTime(timezone=True)),
)

mismatch_history: Final = sa.Table(
    "mismatch_history",
    _metadata,
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("mismatch_id", sa.Text),
    sa.Column("act", sa.Text),
    sa.Column("status_before", sa.Text),
    sa.Column("status_after", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("correction_id", sa.Text),
    sa.Column("actor_id", sa.Text),
    sa.Column("actor_name", sa.Text),
    sa.Column("actor_type", sa.Text),
    sa.Column("request_id", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True)),
)

corrections: Final = sa.Table(
    "corrections",
    _metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("mismatch_id", sa.Text),
    sa.Column("direction", sa.Text),
    sa.Column("content", JSONB),
    sa.Column("content_sha256", sa.LargeBinary),
    sa.Column("status", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("reversal_of", sa.Text),
    sa.Column("proposed_by", sa.Text),
    sa.Column("proposed_by_name", sa.Text),
    sa.Column("decided_by", sa.Text),
    sa.Column("decided_by_name", sa.Text),
    sa.Column("decided_reason", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("decided_at", sa.DateTime(timezone=True)),
    sa.Column("applied_at", sa.DateTime(timezone=True)),
)

correction_entries: Final = sa.Table(
    "correction_entries",
    _metadata,
    sa.Column("correction_id", sa.Text),
    sa.Column("account_id", sa.BigInteger, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True),
    sa.Column("order_no", sa.Text),
    sa.Column("merchant_id", sa.Text),
    sa.Column("channel", sa.Text),
    sa.Column("bucket", sa.Text),
    sa.Column("day", sa.Date),
    sa.Column("amount", sa.BigInteger),
    sa.Column("currency", sa.Text),
    sa.Column("type", sa.SmallInteger),
    sa.Column("posted_at", sa.DateTime(timezone=True)),
    sa.Column("digest", sa.LargeBinary),
)


def mismatch_view(row: Any) -> MismatchView:
    """Return a row of mismatches as others know it."""
    local, upstream = side_view(row.local, row.currency), side_view(row.upstream, row.currency)
    return {
        "id": row.id,
        "kind": row.kind,
        "status": row.status,
        "resolution": row.resolution,
        "channel": row.channel,
        "date": row.day.isoformat(),
        "merchant_id": row.merchant_id,
        "order_no": row.order_no,
        "upstream_ref": row.upstream_ref,
        "currency": row.currency,
        "difference": format_minor(row.difference, row.currency),
        "differing": [_differing(field, local or {}, upstream or {}) for field in row.differing],
        "version": row.version,
        "opened_at": rfc3339(row.opened_at),
        "updated_at": rfc3339(row.updated_at),
    }


def _differing(field: str, local: dict[str, str | None], upstream: dict[str, str | None]) -> DifferingFieldView:
    return {"field": field, "local": local.get(field), "upstream": upstream.get(field)}


def side_view(side: dict[str, Any] | None, currency: str) -> dict[str, str | None] | None:
    """Return what one side says, amounts as decimal strings of that side's own currency."""
    if side is None:
        return None
    own = side.get("currency") or currency
    return {
        field: format_minor(value, own)
        if field in AMOUNTS and type(value) is int
        else None
        if value is None
        else str(value)
        for field, value in side.items()
    }


def mismatch_act_view(row: Any) -> MismatchActView:
    """Return a row of a mismatch's history as others know it."""
    return {
        "act": row.act,
        "status_before": row.status_before,
        "status_after": row.status_after,
        "reason": row.reason,
        "correction_id": row.correction_id,
        "actor_id": row.actor_id,
        "actor_name": row.actor_name,
        "actor_type": row.actor_type,
        "request_id": row.request_id,
        "time": rfc3339(row.created_at),
    }
