"""Statements as CSV: rows read one by one, and a shape by which a whole file that is certainly clean is known quickly.

What has the clean shape is taken whole columns at a time (`statement_lines.py`). Whatever else comes (line breaks in
cells, spaces around them, empty lines) is read row by row, and so is every file with a fault, since only that names it
by line and column.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, cast
from zoneinfo import ZoneInfo

from services.ledger.domain.statements import (
    FIELDS,
    ORDER_NO_LENGTH_MAX,
    REQUIRED_FIELDS,
    Fault,
    RawRecord,
    Record,
    RecordReader,
    Terms,
    Unreadable,
)

LINE_BYTES_MAX: Final = 64 * 1024
LOOK_BYTES: Final = 4096  # who writes quotation marks at all writes one here
COLUMNS_MAX: Final = 64
DELIMITERS: Final = (",", ";", "\t", "|")
_BOM: Final = b"\xef\xbb\xbf"
_OTHER_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")


def blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut a file's pieces anew, so that each ends where a line ends; a byte order mark is left out.

    Raises: Unreadable for what is no UTF-8 by its first bytes, and for a line that does not end.
    """
    rest, lines, is_first = b"", 0, True
    for chunk in chunks:
        data = rest + chunk
        if is_first and len(data) >= len(_BOM):
            if data.startswith(_OTHER_BOMS):
                raise Unreadable(Fault(1, None, "The file is UTF-16; save it as UTF-8."))
            data, is_first = data.removeprefix(_BOM), False
        cut = data.rfind(b"\n") + 1
        rest = data[cut:]
        if len(rest) > LINE_BYTES_MAX:
            line = lines + data.count(b"\n") + 1
            raise Unreadable(Fault(line, None, f"The line has more than {LINE_BYTES_MAX} bytes, or does not end."))
        if cut:
            lines += data.count(b"\n")
            yield data[:cut]
    if rest:
        yield rest


@dataclass(frozen=True, slots=True)
class Header:
    """The first row of a file: what its columns are, and where the rows begin.

    places: field to column number.
    """

    names: tuple[str, ...]
    places: dict[str, int]
    delimiter: str

    @classmethod
    def find(cls, text: str, terms: Terms) -> "Header":
        """Return the header in a file's first line with content. Raises: Unreadable."""
        candidates = (terms.delimiter,) if terms.delimiter else DELIMITERS
        read = [cls._read(text, delimiter, terms) for delimiter in candidates]
        return max(read, key=lambda header: len(header.places))

    @classmethod
    def _read(cls, text: str, delimiter: str, terms: Terms) -> "Header":
        try:
            names = next(csv.reader([text], delimiter=delimiter, strict=True), [])
        except csv.Error:
            names = []
        known = [name.strip().casefold() for name in names]
        wanted = {field: terms.columns[field].strip().casefold() for field in FIELDS}
        places = {field: known.index(name) for field, name in wanted.items() if name in known}
        return cls(tuple(name.strip() for name in names), places, delimiter)

    def check(self, line: int, terms: Terms) -> None:
        """Refuse a header that lacks a column, or names one twice. Raises: Unreadable."""
        lacking = [terms.columns[field] for field in REQUIRED_FIELDS if field not in self.places]
        if "currency" not in self.places and terms.currency is None:
            lacking.append(terms.columns["currency"])
        if lacking:
            found = ", ".join(name for name in self.names if name)[:200]
            raise Unreadable(Fault(line, None, f"The header lacks {', '.join(lacking)}. It has: {found or 'nothing'}."))
        known = [name.casefold() for name in self.names]
        twice = [field for field, place in self.places.items() if known.count(known[place]) > 1]
        if twice:
            raise Unreadable(Fault(line, terms.columns[twice[0]], "The header has this column twice."))
        if len(self.names) > COLUMNS_MAX:
            raise Unreadable(Fault(line, None, f"A row has at most {COLUMNS_MAX} columns."))


class CsvStatement:
    """A CSV file, read row by row in bounded memory."""

    def __init__(self, chunks: Iterable[bytes], terms: Terms) -> None:
        self._blocks = blocks(chunks)
        self._terms = terms
        self._reader = RecordReader(terms)
        self.tells_fees = True
        self.reference_name = terms.columns["upstream_ref"]

    def rows(self) -> Iterator[Record | list[Fault]]:
        """Return each row's record or faults. Raises: Unreadable, after the rows that could be read."""
        lines = self._lines()
        header, header_line = self._header(lines)
        reader = csv.reader(lines, delimiter=header.delimiter, strict=True)
        while True:
            line = header_line + reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                if header_line + reader.line_num > line:
                    message = "A quotation mark opens here and does not close: nothing after it can be read."
                    raise Unreadable(Fault(line, None, message)) from None
                is_long = "field limit" in str(error)
                message = f"A cell has at most {csv.field_size_limit()} signs."
                yield [Fault(line, None, message if is_long else "A quotation mark stands where none may.")]
                continue
            if cells is None:
                return
            if any(cell.strip() for cell in cells):
                yield self._row(line, header, cells)

    def _row(self, line: int, header: Header, cells: list[str]) -> Record | list[Fault]:
        if len(cells) != len(header.names):
            return [Fault(line, None, f"The row has {len(cells)} columns, the header has {len(header.names)}.")]
        raw = {name: cells[place] for name, place in header.places.items()}
        return self._reader.read(line, cast(RawRecord, raw))

    def _header(self, lines: Iterator[str]) -> tuple[Header, int]:
        for line, text in enumerate(lines, start=1):
            if text.strip():
                header = Header.find(text, self._terms)
                header.check(line, self._terms)
                self.tells_fees = "fee" in header.places
                return header, line
        raise Unreadable(Fault(1, None, "The file is empty."))

    def _lines(self) -> Iterator[str]:
        """Return lines with their ends. Raises: Unreadable for what is not UTF-8."""
        lines = 0
        for block in self._blocks:
            try:
                text = block.decode()
            except UnicodeDecodeError as error:
                line = lines + block.count(b"\n", 0, error.start) + 1
                yield from io.StringIO(block[: block.rfind(b"\n", 0, error.start) + 1].decode(), newline="")
                raise Unreadable(Fault(line, None, "The file is not UTF-8; save it as UTF-8.")) from None
            lines += block.count(b"\n")
            yield from io.StringIO(text, newline="")


class NotClean(Exception):
    """This file is to be read row by row."""


# Of the fields' values, those that need no reading. Who changes a rule of `RecordReader` looks here too: a test
# compares both.
_CLEAN_AMOUNT: Final = r"(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,6}+)?"
_CLEAN_DATE: Final = r"20[0-9]{2}SEP(?:0[1-9]|1[0-2])SEP(?:0[1-9]|[12][0-9]|3[01])"
_CLEAN_CLOCK: Final = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
_CLEAN_FRACTION: Final = r"(?:\.[0-9]{1,6}+)?"
_CLEAN_OFFSET: Final = r"(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])"
_CLEAN_FORMATS: Final = {f"%Y{sep}%m{sep}%d{between}%H:%M:%S": (sep, between) for sep in "-/" for between in " T"}


class CleanCsv:
    """A CSV file whose every row has the clean shape: to know its cells, it is enough to cut it at delimiters.

    A cell may stand in quotation marks, which then hold nothing that needs them.
    """

    def __init__(self, chunks: Iterable[bytes], terms: Terms) -> None:
        """Look at the header. Raises: NotClean."""
        self._blocks = blocks(chunks)
        try:
            first = next(self._blocks, b"")
        except Unreadable:
            raise NotClean from None
        end = first.find(b"\n") + 1
        try:
            text = first[:end].decode()
            self.header = Header.find(text, terms)
            self.header.check(1, terms)
        except (UnicodeDecodeError, Unreadable):
            raise NotClean from None
        if terms.decimal_sign != "." or not text.strip():
            raise NotClean
        self._rest = first[end:]
        self._may_quote = b'"' in self._rest[:LOOK_BYTES]
        signs = {'"', self.header.delimiter}
        self.statuses = {w: status for w, status in terms.statuses.items() if w.isascii() and not signs & set(w)}
        self.time_suffix = "" if terms.date_format is None else _fixed_offset(terms)
        self.has_comparable_times = True
        self._plain = re.compile(self._row_pattern(_plain_time_pattern(terms)).encode())
        self._shape = re.compile(self._row_pattern(_time_pattern(terms)).encode())

    def blocks(self) -> Iterator[bytes]:
        """Return the rows, without the header, in pieces that end where a row ends. Raises: NotClean.

        As long as `has_comparable_times` stays true, of two times of the file the later one is the greater text.
        """
        try:
            for block in self._with_rest():
                if block and not block.endswith(b"\n"):
                    block += b"\n"
                self.has_comparable_times = self.has_comparable_times and bool(self._plain.fullmatch(block))
                if not self.has_comparable_times and not self._shape.fullmatch(block):
                    raise NotClean
                yield block
        except Unreadable:
            raise NotClean from None

    def _with_rest(self) -> Iterator[bytes]:
        yield self._rest
        yield from self._blocks

    def _row_pattern(self, time_pattern: str) -> str:
        delimiter = re.escape(self.header.delimiter)
        visible = "".join(re.escape(chr(code)) for code in range(0x21, 0x7F) if chr(code) not in {'"', delimiter[-1]})
        patterns = {
            "upstream_ref": f"[{visible}]{{1,128}}+",
            "order_no": f"[{visible}]{{0,{ORDER_NO_LENGTH_MAX}}}+",
            "amount": _CLEAN_AMOUNT,
            "fee": f"(?:-?{_CLEAN_AMOUNT})?",
            "currency": "[A-Z]{3,4}",
            "status": f"(?i:{'|'.join(re.escape(word) for word in self.statuses)})",
            "time": time_pattern,
        }
        cells = [rf'[^"\r\n\0{delimiter}]*+'] * len(self.header.names)
        for name, place in self.header.places.items():
            cells[place] = patterns[name]
        if self._may_quote:
            cells = [f'(?:"{cell}"|{cell})' for cell in cells]
        return rf"(?:{delimiter.join(cells)}\r?\n)*+"


def _plain_time_pattern(terms: Terms) -> str:
    """Return the pattern of the times of which the later one is the greater text."""
    if terms.date_format is None:
        return _CLEAN_DATE.replace("SEP", "-") + "T" + _CLEAN_CLOCK + "Z"
    return _time_pattern(terms)


def _time_pattern(terms: Terms) -> str:
    if terms.date_format is None:
        return _CLEAN_DATE.replace("SEP", "-") + "T" + _CLEAN_CLOCK + _CLEAN_FRACTION + _CLEAN_OFFSET
    sep, between = _CLEAN_FORMATS[terms.date_format]
    return _CLEAN_DATE.replace("SEP", sep) + between + _CLEAN_CLOCK


def _fixed_offset(terms: Terms) -> str:
    """Return the offset of a zone whose clocks never change, such as "+08:00". Raises: NotClean."""
    if terms.date_format not in _CLEAN_FORMATS or terms.zone_name is None:
        raise NotClean
    zone = ZoneInfo(terms.zone_name)
    # Every quarter of all years that a clean row may name.
    offsets = {
        datetime(year, month, 1, tzinfo=zone).utcoffset() for year in range(2000, 2100) for month in (1, 4, 7, 10)
    }
    offset = offsets.pop() or timedelta(0)
    if offsets or offset.seconds % 60:
        raise NotClean
    minutes = int(offset.total_seconds()) // 60
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
