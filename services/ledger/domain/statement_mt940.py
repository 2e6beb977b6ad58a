"""Statements as MT940: each line `:61:` with its `:86:` is a record. The library reads them, one by one.

Read one by one, a line that is wrong takes no other with it, is named by its number, and a file of any length needs
the memory of one record. The library's `parse` is not used: it opens what its text happens to name as a file.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time
from typing import Any, Final

from mt940.models import Transactions

from services.ledger.domain.statement_csv import blocks
from services.ledger.domain.statements import Fault, RawRecord, Record, RecordReader, Terms, Unreadable

DETAIL_LINES_MAX: Final = 40
logging.getLogger("mt940").setLevel(logging.CRITICAL)  # it writes down whatever it cannot read
_TAG = re.compile(r":([0-9]{2}[A-Z]?):(.*)", re.DOTALL)
_ENDS_STATEMENT = ("-", "-}")
_NO_REFERENCE: Final = frozenset({"", "NONREF", "NOTPROVIDED"})
# The end-to-end id as banks write it into `:86:`: SEPA (EREF+…), SWIFT (/EREF/…) and German sub-fields (?20EREF+…).
_END_TO_END = re.compile(r"(?:^|[?/+\s0-9])EREF(?:\+|/|: ?)(?P<id>[^/+?\s]+)")
_ONE_WORD = re.compile(r"[!-~]{1,64}")


class Mt940Statement:
    """An MT940 file, read record by record in bounded memory."""

    tells_fees = False

    def __init__(self, chunks: Iterable[bytes], terms: Terms, *, zone_name: str) -> None:
        """Begin to read.

        zone_name: a bank's days are days of this zone, unless the channel names one.
        """
        self._blocks = blocks(chunks)
        self._zone_name = terms.zone_name or zone_name
        self._reader = RecordReader(
            Terms(columns=_NAMES, currency=terms.currency, date_format="%Y-%m-%d", zone_name=self._zone_name)
        )
        self._currency: str | None = None

    def rows(self) -> Iterator[Record | list[Fault]]:
        """Return each record or its faults. Raises: Unreadable, after the records that could be read."""
        pending: tuple[int, list[str]] | None = None
        details: list[str] = []
        is_empty = True
        for line, tag, text in self._fields():
            if tag in ("60F", "60M", "61"):
                is_empty = False
            if tag == "86" and pending is not None:
                details.append(text)
                continue
            if pending is not None:
                yield self._record(*pending, details)
                pending, details = None, []
            if tag in ("60F", "60M"):
                self._currency = text[7:10] if len(text) >= 10 else None
            elif tag == "61":
                pending = (line, text.split("\n"))
        if pending is not None:
            yield self._record(*pending, details)
        if is_empty:
            raise Unreadable(Fault(1, None, "The file is no MT940: it has no :60F: and no :61:."))

    def _record(self, line: int, statement_line: list[str], details: list[str]) -> Record | list[Fault]:
        text = "\n".join(statement_line)
        try:
            [transaction] = Transactions().parse(f":60F:C000101{self._currency or 'XXX'}0,\n:61:{text}\n")
            data: dict[str, Any] = transaction.data
            raw = self._raw(data, "\n".join(details))
        except (RuntimeError, ValueError, KeyError, TypeError, ArithmeticError):
            return [Fault(line, ":61:", "Not a statement line of MT940.")]
        return self._reader.read(line, raw)

    def _raw(self, data: dict[str, Any], details: str) -> RawRecord:
        customers, banks = _reference(data.get("customer_reference")), _reference(data.get("bank_reference"))
        day: date = data.get("entry_date") or data["date"]
        is_reversal = str(data["status"]).startswith("R")
        return {
            "upstream_ref": banks or customers or "",
            "order_no": _end_to_end(details) or (customers if banks else "") or _one_word(details),
            "amount": f"{abs(data['amount'].amount):f}",
            "fee": "",
            "currency": self._currency or "",
            "status": "refunded" if is_reversal else "success",
            "time": datetime.combine(day, time()).strftime("%Y-%m-%d"),
        }

    def _fields(self) -> Iterator[tuple[int, str, str]]:
        """Return each field with its line, its tag and its text, which may have several lines."""
        line = 0
        current: tuple[int, str, list[str]] | None = None
        for block in self._blocks:
            for text in _decoded(block, line).splitlines():
                line += 1
                text = text.rstrip("\r")
                match = _TAG.match(text)
                if match or text.strip() in _ENDS_STATEMENT or text.startswith("{"):
                    if current is not None:
                        yield current[0], current[1], "\n".join(current[2])
                    current = (line, match.group(1), [match.group(2)]) if match else None
                elif current is not None and len(current[2]) < DETAIL_LINES_MAX:
                    current[2].append(text)
        if current is not None:
            yield current[0], current[1], "\n".join(current[2])


_NAMES: Final = {
    "upstream_ref": ":61: reference",
    "order_no": ":86:",
    "amount": ":61: amount",
    "fee": ":61:",
    "currency": ":60F:",
    "status": ":61: mark",
    "time": ":61: date",
}


def _decoded(block: bytes, lines: int) -> str:
    try:
        return block.decode()
    except UnicodeDecodeError as error:
        line = lines + block.count(b"\n", 0, error.start) + 1
        raise Unreadable(Fault(line, None, "The file is not UTF-8; save it as UTF-8.")) from None


def _reference(value: Any) -> str:
    text = str(value or "").strip()
    return "" if text.upper() in _NO_REFERENCE else text


def _end_to_end(details: str) -> str:
    # A line of `:86:` ends after 65 characters, wherever it is.
    match = _END_TO_END.search(re.sub(r"\n(?:\?[0-9]{2})?", "", details))
    return _reference(match.group("id")) if match else ""


def _one_word(details: str) -> str:
    text = details.strip()
    return text if _ONE_WORD.fullmatch(text) else ""
