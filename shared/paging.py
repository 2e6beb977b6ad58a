"""Keyset cursors: opaque to a client, and never trusted for anything but the place to go on from."""

import base64
import binascii
from typing import Any, TypedDict

import orjson

from shared.errors import InvalidRequest

LIMIT_DEFAULT = 50
LIMIT_MAX = 500


class Page(TypedDict):
    """One page of a list, newest first."""

    items: list[Any]
    next_cursor: str | None


class InvalidCursor(InvalidRequest):
    """This cursor does not come from this list."""


def encode_cursor(position: list[Any]) -> str:
    """Return the opaque cursor of a position: the sort key's values of the last row that was shown."""
    return base64.urlsafe_b64encode(orjson.dumps(position)).rstrip(b"=").decode()


def decode_cursor(cursor: str, *, length: int) -> list[Any]:
    """Return the position of a cursor that `encode_cursor` made.

    length: how many values this list's sort key has.
    Raises: InvalidCursor.
    """
    try:
        position: list[Any] = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        raise InvalidCursor.of_field("cursor", InvalidCursor.title) from None
    if not isinstance(position, list) or len(position) != length:
        raise InvalidCursor.of_field("cursor", InvalidCursor.title)
    if any(isinstance(value, str) and "\x00" in value for value in position):  # which no database stores
        raise InvalidCursor.of_field("cursor", InvalidCursor.title)
    return position
