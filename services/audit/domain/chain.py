"""The hash chain: each row's hash covers the row and the hash before it, so that no row changes unseen. Pure.

hash = SHA-256(previous hash ‖ canonical JSON of the row). The canonical JSON has its keys in order, no space, and
UTF-8 as it is; no float stands in it, so that any language writes the same bytes. The hash before row 1 is 32 zero
bytes.
"""

import hashlib
from collections.abc import Iterable
from typing import Final, NamedTuple

import orjson

from services.audit.domain.rows import LogContent
from shared.contracts.audit import BreakKind, ChainBreak

GENESIS: Final = bytes(32)


class Link(NamedTuple):
    """A row as it stands in the chain."""

    content: LogContent
    prev_hash: bytes
    hash: bytes


class Head(NamedTuple):
    """The end of the chain, as the database keeps it beside the rows."""

    seq: int
    hash: bytes


def canonical(content: LogContent) -> bytes:
    """Return the bytes of a row that its hash covers."""
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)


def hash_of(prev_hash: bytes, content: LogContent) -> bytes:
    """Return the hash of a row that follows the row of this hash."""
    return hashlib.sha256(prev_hash + canonical(content)).digest()


def seal(head: Head, contents: Iterable[LogContent]) -> list[Link]:
    """Put rows at the end of the chain: number them, and hash each with the one before."""
    links = []
    for content in contents:
        content["seq"] = head.seq + 1
        link = Link(content, head.hash, hash_of(head.hash, content))
        links.append(link)
        head = Head(content["seq"], link.hash)
    return links


class ChainWalk:
    """Walks a range of the chain row by row, in the order of `seq`, and keeps what does not hold.

    The walk goes on after a break, from the row as it stands, so that one break is told once.
    """

    def __init__(self, *, seq_first: int, seq_last: int, hash_before: bytes | None) -> None:
        """Begin. hash_before: of the row before the first; None where that row is not there to follow from."""
        self.checked = 0
        self.breaks: list[ChainBreak] = []
        self._seq = seq_first
        self._seq_last = seq_last
        self._hash = hash_before

    def step(self, link: Link) -> None:
        """Check one row against the one before it."""
        self.checked += 1
        content, seq = link.content, link.content["seq"]
        if seq < self._seq or seq > self._seq_last:
            self._break("inserted", seq, "The chain has another row of this number, or ends before it.", content)
            return
        if seq > self._seq:
            self._break("removed", self._seq, "There is no row of this number.", seq_last=seq - 1)
            self._hash = None
        if hash_of(link.prev_hash, content) != link.hash:
            self._break("changed", seq, "The row is not the one that was hashed.", content)
        elif self._hash is not None and link.prev_hash != self._hash:
            self._break("changed", seq, "The row does not follow from the row before it.", content)
        self._hash = link.hash
        self._seq = seq + 1

    def end(self, head: Head | None = None) -> None:
        """Check that the walk has reached its last row, and that the head, if it is the chain's end, is that row's."""
        if self._seq <= self._seq_last:
            kind: BreakKind = "removed" if head is None else "cut_off"
            self._break(kind, self._seq, "The rows up to the end are gone.", seq_last=self._seq_last)
        elif head is not None and self._hash is not None and self._hash != head.hash:
            self._break("changed", head.seq, "The last row is not the one that the chain ended with.")

    def _break(
        self, kind: BreakKind, seq: int, detail: str, content: LogContent | None = None, *, seq_last: int | None = None
    ) -> None:
        found: ChainBreak = {"kind": kind, "seq": seq, "seq_last": seq_last or seq, "detail": detail}
        if content is not None:
            found["id"] = log_id(content["event_id"], content["part"])
            found["time"] = content["time"]
        self.breaks.append(found)


def log_id(event_id: str, part: int) -> str:
    """Return a row's public id. It tells nothing of how many rows there are."""
    return f"{event_id}-{part}"


def parse_log_id(text: str) -> tuple[str, int] | None:
    """Return the event id and the part that a row's public id names; None for what is no such id."""
    event_id, _, part = text.rpartition("-")
    return (event_id, int(part)) if event_id and part.isascii() and part.isdigit() and len(part) < 7 else None
