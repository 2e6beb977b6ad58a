"""Clean rows of CSV as the lines of text that the database's table of records takes, whole columns at a time.

A row alone would take Python ten times as long as this does, since here each step is one call for thousands of rows.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime

from services.ledger.domain.statement_csv import CleanCsv, NotClean
from services.ledger.domain.statements import Terms
from shared.errors import InvalidRequest
from shared.money import fraction_digits

COLUMNS = ("upstream_ref", "order_no", "amount", "fee", "currency", "status", "occurred_at", "line")
FREE_COLUMNS = {"upstream_ref", "order_no"}  # of any visible signs
DELIMITER = "\t"  # which no clean row holds
FIRST_LINE = 2


class RecordLines:
    """The lines of a clean file: `COLUMNS`, and what is the same on each line."""

    def __init__(self, clean: CleanCsv, terms: Terms, *, constants: Sequence[str] = ()) -> None:
        self._clean = clean
        self._terms = terms
        self._tail = "".join(DELIMITER + constant for constant in constants)
        self.rows = 0
        self.first_occurred_at: datetime | None = None
        self.last_occurred_at: datetime | None = None

    def blocks(self) -> Iterator[bytes]:
        """Return the lines in pieces, and count them. Raises: NotClean."""
        for block in self._clean.blocks():
            if block:
                yield self._lines(block)

    def _lines(self, block: bytes) -> bytes:
        try:
            text = block.decode().replace("\r\n", "\n").replace('"', "")
        except UnicodeDecodeError:
            raise NotClean from None
        header = self._clean.header
        cells = text[:-1].replace("\n", header.delimiter).split(header.delimiter)
        width = len(header.names)
        given = {name: cells[place::width] for name, place in header.places.items()}
        if "\\" in text:  # which says something to COPY
            for name in given.keys() & FREE_COLUMNS:
                given[name] = [cell.replace("\\", "\\\\") for cell in given[name]]
        count = len(given["time"])
        first_line = FIRST_LINE + self.rows
        self.rows += count
        currencies = given.get("currency") or [self._terms.currency or ""] * count
        times = self._times(given["time"])
        columns = (
            given["upstream_ref"],
            given.get("order_no") or [""] * count,
            _minor(given["amount"], currencies),
            _minor(given["fee"], currencies) if "fee" in given else ["0"] * count,
            currencies,
            self._statuses(given["status"]),
            times,
            [f"{line}{self._tail}" for line in range(first_line, first_line + count)],
        )
        return "".join(["\n".join(map(DELIMITER.join, zip(*columns, strict=True))), "\n"]).encode()

    def _statuses(self, words: list[str]) -> list[str]:
        meanings = {word: self._clean.statuses[word.lower()] for word in set(words)}
        return [meanings[word] for word in words]

    def _times(self, times: list[str]) -> list[str]:
        """Return times with their offsets, and note the first and the last."""
        suffix = self._clean.time_suffix
        if suffix:
            times = [time + suffix for time in times]
        try:
            if self._clean.has_comparable_times:
                ends = [_instant(min(times)), _instant(max(times))]
            else:
                instants = list(map(_instant, times))
                ends = [min(instants), max(instants)]
        except ValueError:  # a day that no month has
            raise NotClean from None
        self.first_occurred_at = min(filter(None, (self.first_occurred_at, ends[0])))
        self.last_occurred_at = max(filter(None, (self.last_occurred_at, ends[1])))
        return times


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("/", "-"))


def _minor(cells: list[str], currencies: list[str]) -> list[str]:
    """Return amounts in minor units. Raises: NotClean."""
    try:
        digits = {currency: fraction_digits(currency) for currency in set(currencies)}
    except InvalidRequest:
        raise NotClean from None
    if len(digits) == 1:
        (places,) = digits.values()
        joined = " ".join(cells)
        if places and re.fullmatch(rf"(?:-?[0-9]+\.[0-9]{{{places}}} )*+", joined + " "):
            return joined.replace(".", "").split(" ")
    return [_one_minor(cell, digits[currency]) for cell, currency in zip(cells, currencies, strict=True)]


def _one_minor(cell: str, digits: int) -> str:
    whole, _, fraction = cell.partition(".")
    if len(fraction) > digits:
        raise NotClean
    return (whole or "0") + fraction.ljust(digits, "0")
