"""Statements as camt.053 (ISO 20022): each booked entry, or each transaction in it, is a record.

Read in a stream, an entry at a time, of which only what a record needs is kept. A document type, entities and
references to elsewhere are refused, and so is whatever would have the parser hold more than a statement needs.
"""

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, Final, NamedTuple
from xml.sax import SAXException
from xml.sax.handler import ContentHandler

from defusedxml.common import DefusedXmlException
from defusedxml.expatreader import DefusedExpatParser

from services.ledger.domain.statements import Fault, RawRecord, Record, RecordReader, Terms, Unreadable

FEED_BYTES: Final = 64 * 1024
TEXT_LENGTH_MAX: Final = 500
TAG_BYTES_MAX: Final = 1024 * 1024
DEPTH_MAX: Final = 64
NAMES_MAX: Final = 2000  # the parser keeps every name that it has seen; camt.053 has some 600
NODES_IN_ENTRY_MAX: Final = 200_000
_NO_REFERENCE: Final = frozenset({"", "NONREF", "NOTPROVIDED"})
_NAMES: Final = {
    "upstream_ref": "AcctSvcrRef",
    "order_no": "EndToEndId",
    "amount": "Amt",
    "fee": "Chrgs",
    "currency": "Ccy",
    "status": "Sts",
    "time": "BookgDt",
}
# The elements of an entry or a balance that anybody here looks at.
_READ: Final = frozenset({
    "AcctSvcrRef", "Amt", "AmtDtls", "BookgDt", "Cd", "CdOrPrtry", "CdtDbtInd", "Chrgs", "Dt", "DtTm", "EndToEndId",
    "InstdAmt", "InstrId", "NtryDtls", "Rcrd", "Refs", "RtrInf", "RvslInd", "Sts", "Tp", "TtlChrgsAndTaxAmt", "TxAmt",
    "TxDtls", "TxId", "ValDt",
})  # fmt: skip
_KEPT: Final = frozenset({"Bal", "Ntry"})
_PLAIN_DECIMAL = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,6})?", re.ASCII)


class _Node:
    """An element, by its local name: what schema version it is of does not matter."""

    __slots__ = ("children", "currency", "line", "name", "text")

    def __init__(self, name: str, line: int, currency: str = "") -> None:
        self.name, self.currency, self.line = name, currency, line
        self.children: list[_Node] = []
        self.text = ""

    def all(self, path: str) -> list["_Node"]:
        """Return the elements at a path such as `NtryDtls/TxDtls`."""
        found = [self]
        for name in path.split("/"):
            found = [child for node in found for child in node.children if child.name == name]
        return found

    def first(self, *paths: str) -> str:
        """Return the text of the first element with one, in the order of the paths."""
        return next((node.text.strip() for path in paths for node in self.all(path) if node.text.strip()), "")


class _Entries(ContentHandler):
    """Keeps the entry that is being read, and hands over entries, balances and the ends of statements."""

    def __init__(self, locator: Any) -> None:
        super().__init__()
        self.complete: list[_Node] = []
        self.is_statement = False
        self.has_moved = False  # whether anything was read of what came in
        self._open: list[_Node] = []
        self._nodes = 0
        self._depth = 0
        self._skipped_depth = 0  # of the element in an entry that nobody looks at; 0 where there is none
        self._local_names: dict[str, str] = {}
        self._locator = locator

    @property
    def line(self) -> int:
        """The line that is being read."""
        return int(self._locator.getLineNumber() or 1)

    def startElement(self, name: str, attrs: Any) -> None:
        self.has_moved = True
        self._depth += 1
        local = self._local_names.get(name) or self._learn(name)
        if self._depth > DEPTH_MAX:
            raise Unreadable(Fault(self.line, local[:TEXT_LENGTH_MAX], "The elements are nested too deeply."))
        for attribute in attrs.keys():  # noqa: SIM118  # of no dict
            if attribute not in self._local_names:
                self._learn(attribute)
        if self._skipped_depth:
            return
        if not self._open:
            self.is_statement = self.is_statement or local == "BkToCstmrStmt"
            if not self.is_statement or local not in _KEPT:
                return
        elif local not in _READ:
            self._skipped_depth = self._depth
            return
        self._nodes += 1
        if self._nodes > NODES_IN_ENTRY_MAX:
            raise Unreadable(Fault(self.line, "Ntry", "The entry is too large."))
        node = _Node(local, self.line, attrs.get("Ccy", "")[:TEXT_LENGTH_MAX])
        if self._open:
            self._open[-1].children.append(node)
        self._open.append(node)

    def endElement(self, name: str) -> None:
        self.has_moved = True
        self._depth -= 1
        if self._skipped_depth:
            if self._depth < self._skipped_depth:
                self._skipped_depth = 0
        elif self._open:
            node = self._open.pop()
            if not self._open:
                self.complete.append(node)
                self._nodes = 0
        elif self._local_names[name] == "Stmt":
            self.complete.append(_Node("Stmt", self.line))

    def characters(self, content: str) -> None:
        self.has_moved = True
        if self._open and not self._skipped_depth:
            node = self._open[-1]
            if len(node.text) < TEXT_LENGTH_MAX:
                node.text += content[: TEXT_LENGTH_MAX - len(node.text)]

    def _learn(self, name: str) -> str:
        """Return the local name of an element, or of an attribute."""
        if len(self._local_names) >= NAMES_MAX:
            raise Unreadable(Fault(self.line, None, f"The file has more than {NAMES_MAX} names of elements."))
        self._local_names[name] = local = name.rpartition(":")[2]
        return local


class _Balances:
    """What the entries of a statement add to its opening balance, as far as that can be known."""

    def __init__(self) -> None:
        self._given: dict[str, list[_Node]] = {}
        self._sums: dict[str, Decimal] = {}
        self._is_known = True

    def take(self, node: _Node) -> None:
        """Take a balance or an entry."""
        if node.name == "Bal":
            self._given.setdefault(node.first("Tp/CdOrPrtry/Cd", "Tp/Cd"), []).append(node)
        elif _status_code(node) in ("BOOK", ""):
            amount = _signed(node)
            self._is_known = self._is_known and amount is not None
            currency = _currency(node)
            self._sums[currency] = self._sums.get(currency, Decimal(0)) + (amount or 0)

    def fault(self) -> Fault | None:
        """Return what is wrong with the closing balance.

        A statement of several pages has interim balances, and its entries stand on all of them: nothing is known then.
        """
        opening, closing = self._given.get("OPBD") or self._given.get("PRCD") or [], self._given.get("CLBD") or []
        if not self._is_known or len(opening) != 1 or len(closing) != 1 or "ITBD" in self._given:
            return None
        first, last, currency = _signed(opening[0]), _signed(closing[0]), _currency(closing[0])
        if first is None or last is None or {_currency(opening[0]), *self._sums} != {currency}:
            return None
        expected = first + self._sums.get(currency, Decimal(0))
        if last == expected:
            return None
        told = f"The opening balance and the entries come to {expected:f}, but here stands {last:f}."
        return Fault(closing[0].line, "Bal", told)


class CamtStatement:
    """A camt.053 file, read entry by entry in bounded memory."""

    tells_fees = True
    reference_name = _NAMES["upstream_ref"]

    def __init__(self, chunks: Iterable[bytes], terms: Terms, *, zone_name: str) -> None:
        """Begin to read.

        zone_name: a bank's days are days of this zone, unless the channel names one.
        """
        self._chunks = chunks
        self._balances = _Balances()
        self._reader = RecordReader(
            Terms(columns=_NAMES, currency=terms.currency, zone_name=terms.zone_name or zone_name)
        )

    def rows(self) -> Iterator[Record | list[Fault]]:
        """Return each record or its faults. Raises: Unreadable, after the records that could be read."""
        parser = DefusedExpatParser(forbid_dtd=True, forbid_entities=True, forbid_external=True)
        handler = _Entries(parser)
        parser.setContentHandler(handler)
        try:
            for piece in _pieces(self._chunks, handler):
                _feed(parser, piece)
                yield from self._taken(handler)
            parser.close()
        except DefusedXmlException:
            message = "The file has a document type or entities, which no statement needs."
            raise Unreadable(Fault(handler.line, None, message)) from None
        except SAXException as error:
            yield from self._taken(handler)
            raise Unreadable(Fault(handler.line, None, f"Not well-formed XML: {error.getMessage()}.")) from None
        if not handler.is_statement:
            raise Unreadable(Fault(1, None, "The file is no camt.053: it has no BkToCstmrStmt."))

    def _taken(self, handler: _Entries) -> Iterator[Record | list[Fault]]:
        nodes, handler.complete = handler.complete, []
        for node in nodes:
            if node.name == "Stmt":
                fault, self._balances = self._balances.fault(), _Balances()
                if fault is not None:
                    yield [fault]
                continue
            self._balances.take(node)
            if node.name == "Ntry":
                transactions = node.all("NtryDtls/TxDtls")
                for transaction in transactions or [node]:
                    yield self._record(node, transaction, is_only=len(transactions) <= 1)

    def _record(self, entry: _Node, transaction: _Node, *, is_only: bool) -> Record | list[Fault]:
        """Return an entry's transaction as a record.

        transaction: the entry itself where the bank says no more of it.
        is_only: whether what the entry says of itself is of this transaction alone.
        """
        charges = _charges(transaction) or (_charges(entry) if is_only else [])
        raw = _raw(entry, transaction, charges, is_only=is_only)
        row = self._reader.read(transaction.line, raw)
        foreign = {charge.currency for charge in charges} - {"", raw["currency"]}
        if not foreign:
            return row
        message = f"The charges are in {min(foreign)[:8]}, the amount is in {raw['currency'][:8] or 'none'}."
        return [*(row if isinstance(row, list) else []), Fault(transaction.line, "Chrgs", message)]


def _raw(entry: _Node, transaction: _Node, charges: list["_Charge"], *, is_only: bool) -> RawRecord:
    """Return an entry's transaction as its file has it."""
    # What was instructed may be in another currency than what was booked, and is asked last.
    amounts = [*transaction.all("Amt"), *transaction.all("AmtDtls/TxAmt/Amt")]
    amounts += [*(entry.all("Amt") if is_only else []), *transaction.all("AmtDtls/InstdAmt/Amt")]
    reference = _reference(transaction.first("Refs/AcctSvcrRef", "Refs/TxId", "AcctSvcrRef"))
    if not reference and is_only:
        reference = _reference(entry.first("AcctSvcrRef"))
    end_to_end = _reference(transaction.first("Refs/EndToEndId")) or _reference(transaction.first("Refs/InstrId"))
    return {
        "upstream_ref": reference or end_to_end,
        "order_no": end_to_end,
        "amount": amounts[0].text if amounts else "",
        "fee": _total(charges),
        "currency": amounts[0].currency if amounts else "",
        "status": _status(entry, transaction),
        "time": entry.first("BookgDt/DtTm") or _midnight(entry.first("BookgDt/Dt"))
        or entry.first("ValDt/DtTm") or _midnight(entry.first("ValDt/Dt")),
    }  # fmt: skip


def _midnight(day: str) -> str:
    """Return the beginning of a day, which may have an offset."""
    return f"{day[:10]}T00:00:00{day[10:]}" if day else ""


class _Charge(NamedTuple):
    """A part of what the bank took, or gave back."""

    text: str
    currency: str
    is_given_back: bool


def _charges(node: _Node) -> list[_Charge]:
    """Return the charges of an entry or a transaction: their total where it is told, else each."""
    found: list[_Charge] = []
    for charges in node.all("Chrgs"):
        for part in charges.all("Rcrd") if not charges.all("TtlChrgsAndTaxAmt") else [charges]:
            found += [_charge(part, amount) for amount in part.all("TtlChrgsAndTaxAmt") or part.all("Amt")[:1]]
        if not charges.all("TtlChrgsAndTaxAmt") and not charges.all("Rcrd"):
            found += [_charge(charges, amount) for amount in charges.all("Amt")[:1]]
    return found


def _charge(part: _Node, amount: _Node) -> _Charge:
    return _Charge(amount.text.strip(), amount.currency, part.first("CdtDbtInd") == "CRDT")


def _total(charges: list[_Charge]) -> str:
    """Return what charges come to; one that is no number is returned as it is, so that it is named."""
    total = Decimal(0)
    for charge in charges:
        if not _PLAIN_DECIMAL.fullmatch(charge.text):
            return charge.text or "?"
        total += Decimal(charge.text) * (-1 if charge.is_given_back else 1)
    return f"{total:f}" if charges else ""


def _signed(node: _Node) -> Decimal | None:
    """Return what an entry or a balance adds to the account; None where that cannot be read."""
    text = node.first("Amt")
    mark = node.first("CdtDbtInd")
    if not _PLAIN_DECIMAL.fullmatch(text) or mark not in ("CRDT", "DBIT"):
        return None
    return Decimal(text) if mark == "CRDT" else -Decimal(text)


def _currency(node: _Node) -> str:
    return next((amount.currency for amount in node.all("Amt")), "")


def _status_code(entry: _Node) -> str:
    return entry.first("Sts/Cd", "Sts")


def _status(entry: _Node, transaction: _Node) -> str:
    """Return what became of a transaction: a booked entry was paid, a reversal or a return was given back."""
    if entry.first("RvslInd").lower() in ("true", "1") or transaction.all("RtrInf"):
        return "refunded"
    code = _status_code(entry)
    return {"BOOK": "success", "PDNG": "pending", "FUTR": "pending", "INFO": "pending", "": "success"}.get(code, code)


def _reference(text: str) -> str:
    return "" if text.upper() in _NO_REFERENCE else text


def _feed(parser: DefusedExpatParser, piece: bytes) -> None:
    try:
        parser.feed(piece)
    except DefusedXmlException:
        raise
    except (LookupError, ValueError):  # the parser looks for Python's codec of the name that the file has
        raise Unreadable(Fault(1, None, "The file's encoding is not known; save it as UTF-8.")) from None


def _pieces(chunks: Iterable[bytes], handler: _Entries) -> Iterator[bytes]:
    """Cut chunks so small that no more entries come together than fit. Raises: Unreadable for a tag without an end."""
    unread = 0
    for chunk in chunks:
        for start in range(0, len(chunk), FEED_BYTES):
            piece = chunk[start : start + FEED_BYTES]
            handler.has_moved = False
            yield piece
            unread = 0 if handler.has_moved else unread + len(piece)
            if unread > TAG_BYTES_MAX:
                message = f"A tag or comment has more than {TAG_BYTES_MAX} bytes, or does not end."
                raise Unreadable(Fault(handler.line, None, message))
