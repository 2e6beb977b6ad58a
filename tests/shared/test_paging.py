"""Cursors are opaque, and a made-up one is refused before it reaches the database."""

import base64
from typing import Any

import orjson
import pytest

from shared.paging import InvalidCursor, decode_cursor, encode_cursor


@pytest.mark.parametrize("position", [["usr_1"], [1, "x"], ["2026-11-24T08:00:00Z", 5]])
def test_a_cursor_leads_back_to_its_position(position: list[Any]) -> None:
    assert decode_cursor(encode_cursor(position), length=len(position)) == position


@pytest.mark.parametrize(
    "content", [b"", b"no json", b"{}", b'"usr_1"', b"[]", b'["a", "b"]', orjson.dumps(["usr_\x00"]), b'["\\ud800"]']
)
def test_a_made_up_cursor_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidCursor):
        decode_cursor(base64.urlsafe_b64encode(content).decode(), length=1)


@pytest.mark.parametrize("cursor", ["%", "é", "a", "=", "A" * 1001])
def test_what_is_not_base64_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        decode_cursor(cursor, length=1)
