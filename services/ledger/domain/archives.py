"""What an archive is: the entries of a month as CSV, the chain that they must form, and which month may leave when."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import date
from hashlib import sha256
from typing import Any, Final

from services.ledger.domain.entries import Entry, digest_of

MONTHS_A_YEAR: Final = 12


COLUMNS: Final = tuple(field.name for field in fields(Entry))  # of an archive's CSV, in this order
_NUMBERS: Final = frozenset(
    ("account_id", "version", "amount", "balance_before", "balance_after", "type", "at_microseconds")
)
_OPTIONAL: Final = frozenset(("counter_account", "order_no", "channel", "note", "reason"))


def entries_of(content: bytes) -> Iterator[Entry]:
    """Return the entries of a part's CSV. An empty field is none: no text of an entry is empty."""
    for values in csv.reader(io.StringIO(content.decode(), newline="")):
        yield Entry(*map(_read, COLUMNS, values))


def _read(column: str, value: str) -> Any:
    if column in _NUMBERS:
        return int(value)
    if column == "digest":
        return bytes.fromhex(value)
    return None if column in _OPTIONAL and not value else value


@dataclass(slots=True)
class Opening:
    """Where an account's entries go on: what its last entry that left says, or the beginning."""

    version: int = 0
    balance: int = 0
    digest: bytes = b""
    holder: str = ""


def holder_of(row: Any) -> str:
    """Return whose account an entry, or an account's row, is of, as one text."""
    return "\x1f".join((row.merchant_id, row.holder_type, row.holder_id, row.currency))


class Chains:
    """The chains of accounts, entry by entry: what `verification` proves in SQL of the entries that are left."""

    def __init__(self, openings: dict[int, Opening]) -> None:
        self.openings = openings
        self.changed: set[int] = set()
        self.entries = 0

    def add(self, row: Entry) -> str | None:
        """Add the next entry of its account. Returns: what is wrong with it, if anything is."""
        opening = self.openings.setdefault(row.account_id, Opening())
        self.entries += 1
        self.changed.add(row.account_id)
        digest = digest_of(opening.digest, row)
        is_right = (
            row.version == opening.version + 1
            and row.balance_before == opening.balance
            and row.balance_after == row.balance_before + row.amount
            and digest == row.digest
        )
        opening.version, opening.balance, opening.digest = row.version, row.balance_after, digest
        opening.holder = holder_of(row)
        return None if is_right else f"Entry {row.version} of account {row.account_id} is not what was posted."


def chained(previous: bytes | None, part_digests: list[bytes]) -> bytes:
    """Return an archive's digest: of the archive before it and of its parts, in their order."""
    return sha256((previous or b"") + b"".join(part_digests)).digest()


def is_over(month: date, today: date) -> bool:
    """Return whether a month is over."""
    return _index(month) < _index(today)


def is_due(month: date, today: date, *, retention_months: int) -> bool:
    """Return whether a month's entries are older than the log keeps them. 0 keeps them for ever."""
    return retention_months > 0 and _index(today) - _index(month) > retention_months


def _index(day: date) -> int:
    return day.year * MONTHS_A_YEAR + day.month
