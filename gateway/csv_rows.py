"""The one CSV writer: rows as RFC 4180 text that no spreadsheet runs as a formula (RELIABILITY.md R32)."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

# The last four are the full-width forms that spreadsheets in East Asian locales take for the first four.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "＝", "＋", "－", "＠")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?", re.ASCII)


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, with_header: bool) -> Iterator[str]:
    """Return the rows as pieces of CSV text; a column that a row lacks is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    if with_header:
        writer.writerow(columns)
    writer.writerows([cell(row.get(column)) for column in columns] for row in rows)
    yield buffer.getvalue()


def cell(value: Any) -> str:
    """Return a value as a cell: numbers stay numbers, what would run as a formula gets an apostrophe before it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode()
    text = str(value)
    if text.lstrip(" ").startswith(_FORMULA_STARTS) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text
