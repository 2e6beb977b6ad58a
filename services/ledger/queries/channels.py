"""Reads of channels. They are the platform's own, so every caller who may read settings sees all of them."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.cipher import ChannelCipher
from services.ledger.models.channels import channel_view, channels
from services.ledger.models.entries import microseconds
from services.ledger.queries.pages import instant
from shared.contracts.channels import ChannelNotFound, ChannelPage, ChannelView
from shared.paging import InvalidCursor, decode_cursor, encode_cursor

_AT_MICROSECONDS = microseconds(channels.c.created_at).label("at_microseconds")


def list_channels(session: Session, cipher: ChannelCipher, *, limit: int, cursor: str | None) -> ChannelPage:
    """Return one page of channels, newest first. Raises: InvalidCursor."""
    query = sa.select(channels, _AT_MICROSECONDS)
    if cursor:
        at, code = decode_cursor(cursor, length=2)
        if type(at) is not int or not 0 <= at < 2**63 or type(code) is not str:
            raise InvalidCursor.of_field("cursor", InvalidCursor.title)
        query = query.where(sa.tuple_(channels.c.created_at, channels.c.code) < (instant(at), code))
    rows = session.execute(query.order_by(channels.c.created_at.desc(), channels.c.code.desc()).limit(limit + 1)).all()
    shown = rows[:limit]
    return {
        "items": [channel_view(row, cipher.open(row.secrets, code=row.code)) for row in shown],
        "next_cursor": encode_cursor([shown[-1].at_microseconds, shown[-1].code]) if len(rows) > limit else None,
    }


def get_channel(session: Session, cipher: ChannelCipher, *, code: str) -> ChannelView:
    """Return a channel. Raises: ChannelNotFound."""
    row = channel_row(session, code)
    return channel_view(row, cipher.open(row.secrets, code=row.code))


def channel_row(session: Session, code: str) -> Any:
    """Return a channel's row, whatever its status is. Raises: ChannelNotFound."""
    row = session.execute(sa.select(channels).where(channels.c.code == code)).first()
    if row is None:
        raise ChannelNotFound
    return row
