"""The table of channels, and how others see its rows."""

from collections.abc import Iterable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from shared.contracts.channels import ChannelView
from shared.times import rfc3339

_metadata = sa.MetaData()

channels: Final = sa.Table(
    "channels",
    _metadata,
    sa.Column("code", sa.Text, primary_key=True),
    sa.Column("name", sa.Text),
    sa.Column("kind", sa.Text),
    sa.Column("config", JSONB),
    sa.Column("secrets", sa.LargeBinary),
    sa.Column("status", sa.Text),
    sa.Column("version", sa.BigInteger),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("updated_at", sa.DateTime(timezone=True)),
)


def channel_view(row: Any, credentials: Iterable[str]) -> ChannelView:
    """Return a row of channels as others know it, without its secrets."""
    return {
        "code": row.code,
        "name": row.name,
        "kind": row.kind,
        "config": row.config,
        "credentials": sorted(credentials),
        "status": row.status,
        "version": row.version,
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
    }
