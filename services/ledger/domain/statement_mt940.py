"""Statements as MT940: each line `:61:` with its `:86:` is a record, and the balances around them must add up.

Read field by field, a line that is wrong takes no other with it, is named by its number, and a file of any length
needs the memory of one record. A library is not used: what it cannot place it leaves out, so that `12.50` becomes 12.
"""

import io
import re
from collections.abc import Iterable, Iterator
from datetime import date
from decimal import Decimal
from typing import Final

from services.ledger.domain.statement_csv import blocks
from services.ledger.domain.statements import Fault, RawRecord, Record, RecordReader, Terms, Unreadable

DETAIL_LINES_MAX: Final = 40
ENTRY_DAYS_MAX: Final = 183  # between an entry's date, which names no year, and its value date
UNKNOWN_CURRENCY: Final = "?"
_OPENING: Final = frozenset({"60F", "60M"})
_CLOSING: Final = frozenset({"62F", "62M"})
_TAG = re.compile(r":([0-9]{2}[A-Z]?):(.*)")
_AMOUNT: Final = r"(?P<amount>[0-9]+(?:,[0-9]*)?|,[0-9]+)"
_STATEMENT_LINE = re.compile(
    r"(?P<value_date>[0-9]{6})(?:(?P<entry_date>[0-9]{4})| {4})?(?P<mark>R?[CD])[A-Z]? ?"
    + _AMOUNT
    + r"[A-Z][A-Z0-9 ]{3}(?P<references>.*)"
)
_BALANCE = re.compile(r"(?P<mark>[CD])[0-9]{6}(?P<currency>[A-Z]{3,4})" + _AMOUNT)
_BLOCK: Final = ("-}", "{1:", "{2:", "{3:", "{4:", "{5:")
# Whether what is marked so adds to the account. A reversal takes back what its second letter says.
_ADDS: Final = {"C": True, "D": False, "RC": False, "RD": True}
_NO_REFERENCE: Final = frozenset({"", "NONREF", "NOTPROVIDED", "KREF+"})
# The end-to-end id as banks write it into `:86:`: SEPA and Germany (EREF+…), SWIFT (/EREF/…), and as words.
_END_TO_END = re.compile(r"(?:^|[?/+\s0-9])EREF[+/](?P<id>[^/+?\s]+)")
_END_TO_END_IN_WORDS = re.compile(r"(?:^|\s)EREF: ?(?P<id>[^/+?\s]+)")
# A German sub-field has 27 signs; what is longer goes on in the next one, unless that begins with a word of its own.
_GOES_ON = re.compile(r"(?<=\?[26][0-9][^?]{27})\?[26][0-9](?![A-Z]{4}\+)")
_ONE_WORD = re.compile(r"(?!/)[!->@-~]{1,64}")


class Mt940Statement:
    """An MT940 file, read record by record in bounded memory."""

    tells_fees = False
    reference_name = ":61: reference"

    def __init__(self, chunks: Iterable[bytes], terms: Terms, *, zone_name: str) -> None:
        """Begin to read.

        zone_name: a bank's days are days of this zone, unless the channel names one.
        """
        self._blocks = blocks(chunks)
        self._reader = RecordReader(
            Terms(columns=_NAMES, currency=terms.currency, zone_name=terms.zone_name or zone_name)
        )
        self._currency = ""
        self._opened_at: int | None = None
        self._balance: Decimal | None = None  # what the account has by now; None where that is not known

    def rows(self) -> Iterator[Record | list[Fault]]:
        """Return each record or its faults. Raises: Unreadable, after the records that could be read."""
        pending: tuple[int, str] | None = None
        details: list[str] = []
        is_empty = True
        for line, tag, text in self._fields():
            is_empty = is_empty and tag != "61" and tag not in _OPENING
            if tag == "86" and pending is not None:
                details.append(text)
                continue
            if pending is not None:
                yield self._record(*pending, "\n".join(details))
                pending, details = None, []
            if tag == "20" or tag in _OPENING:
                yield from self._cut_off()
            if tag in _OPENING:
                yield from self._open(line, tag, text)
            elif tag == "61":
                pending = (line, text.partition("\n")[0])
            elif tag in _CLOSING:
                yield from self._close(line, tag, text)
        if pending is not None:
            yield self._record(*pending, "\n".join(details))
        yield from self._cut_off()
        if is_empty:
            raise Unreadable(Fault(1, None, "The file is no MT940: it has no :60F: and no :61:."))

    def _record(self, line: int, text: str, details: str) -> Record | list[Fault]:
        match = _STATEMENT_LINE.fullmatch(text.rstrip())
        row = [_WRONG._replace(line=line)] if match is None else self._read(line, match, details)
        if match is None or isinstance(row, list):
            self._balance = None
        elif self._balance is not None:
            self._balance += _signed(match)
        return row

    def _read(self, line: int, match: re.Match[str], details: str) -> Record | list[Fault]:
        try:
            day = _day(match)
        except ValueError:
            return [Fault(line, ":61: date", "There is no such day.")]
        customers, _, banks = map(_reference, match["references"].partition("//"))
        raw: RawRecord = {
            "upstream_ref": banks or customers,
            "order_no": _end_to_end(details) or (customers if banks else "") or _one_word(details),
            "amount": f"{_decimal(match):f}",
            "currency": self._currency,
            "status": "refunded" if match["mark"].startswith("R") else "success",
            "time": f"{day}T00:00:00",
        }
        return self._reader.read(line, raw)

    def _open(self, line: int, tag: str, text: str) -> Iterator[list[Fault]]:
        """Take an opening balance: what follows is in its currency, and in none where that cannot be read."""
        match = _balance_of(text)
        self._opened_at = line
        self._currency = match["currency"] if match else UNKNOWN_CURRENCY
        self._balance = _signed(match) if match else None
        if match is None:
            yield [Fault(line, f":{tag}:", _NO_BALANCE)]

    def _close(self, line: int, tag: str, text: str) -> Iterator[list[Fault]]:
        """Compare a closing balance with what the lines before it come to, as far as that is known."""
        match = _balance_of(text)
        if match is None:
            yield [Fault(line, f":{tag}:", _NO_BALANCE)]
        elif self._balance is not None:
            closing = _signed(match)
            if closing != self._balance or match["currency"] != self._currency:
                told = f"The opening balance and the lines come to {self._balance:f} {self._currency}"
                yield [Fault(line, f":{tag}:", f"{told}, but here stands {closing:f} {match['currency']}.")]
        self._opened_at = self._balance = None

    def _cut_off(self) -> Iterator[list[Fault]]:
        """Name a statement that began and has no end: what is cut off must not pass for whole."""
        if self._opened_at is not None:
            yield [Fault(self._opened_at, ":62F:", "The statement that begins here has no closing balance.")]
        self._opened_at = self._balance = None
        self._currency = ""

    def _fields(self) -> Iterator[tuple[int, str, str]]:
        """Return each field with its line, its tag and its text, which may have several lines."""
        line = 0
        current: tuple[int, str, list[str]] | None = None
        for block in self._blocks:
            for text in io.StringIO(_decoded(block, line), newline=None):
                line += 1
                text = text.rstrip("\n")
                match = _TAG.match(text)
                if match or text.strip() == "-" or text.startswith(_BLOCK):
                    if current is not None:
                        yield current[0], current[1], "\n".join(current[2])
                    current = (line, match.group(1), [match.group(2)]) if match else None
                elif current is not None and len(current[2]) < DETAIL_LINES_MAX:
                    current[2].append(text)
        if current is not None:
            yield current[0], current[1], "\n".join(current[2])


_NO_BALANCE: Final = "Not a balance of MT940, such as C261122EUR1012,50."
_WRONG: Final = Fault(0, ":61:", "Not a statement line of MT940, which begins as 2611221122C12,50NTRF.")
_NAMES: Final = {
    "upstream_ref": Mt940Statement.reference_name,
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


def _decimal(match: re.Match[str]) -> Decimal:
    return Decimal(match["amount"].replace(",", "."))


def _balance_of(text: str) -> re.Match[str] | None:
    return _BALANCE.fullmatch(text.partition("\n")[0].strip())


def _signed(match: re.Match[str]) -> Decimal:
    """Return what a line or balance adds to the account."""
    return _decimal(match) if _ADDS[match["mark"]] else -_decimal(match)


def _day(match: re.Match[str]) -> date:
    """Return the entry's date in the year that brings it nearest to its value date. Raises: ValueError."""
    year, month, day = (int(match["value_date"][place : place + 2]) for place in (0, 2, 4))
    value_date = date(2000 + year, month, day)
    if match["entry_date"] is None:
        return value_date
    for entry_year in (value_date.year, value_date.year - 1, value_date.year + 1):
        try:
            entry_date = date(entry_year, int(match["entry_date"][:2]), int(match["entry_date"][2:]))
        except ValueError:  # a 29th of February that this year has not
            continue
        if abs((entry_date - value_date).days) <= ENTRY_DAYS_MAX:
            return entry_date
    raise ValueError


def _reference(text: str) -> str:
    text = text.strip()
    return "" if text.upper() in _NO_REFERENCE else text


def _end_to_end(details: str) -> str:
    # A line of `:86:` ends after 65 signs, wherever it is.
    joined = _GOES_ON.sub("", details.replace("\n", ""))
    match = _END_TO_END.search(joined) or _END_TO_END_IN_WORDS.search(details)
    return _reference(match["id"]) if match else ""


def _one_word(details: str) -> str:
    text = details.strip()
    return text if _ONE_WORD.fullmatch(text) else ""
