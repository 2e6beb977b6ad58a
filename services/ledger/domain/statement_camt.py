"""Statements as camt.053 (ISO 20022): each booked entry, or each transaction in it, is a record.

Read in a stream, an entry at a time. A document type, entities and references to elsewhere are refused.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final
from xml.sax import SAXException
from xml.sax.handler import ContentHandler

from defusedxml.common import DefusedXmlException
from defusedxml.expatreader import DefusedExpatParser

from services.ledger.domain.statements import Fault, RawRecord, Record, RecordReader, Terms, Unreadable

FEED_BYTES: Final = 64 * 1024
TEXT_LENGTH_MAX: Final = 500
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


class _Node:
    """An element of an entry, by its local name: what schema version it is of does not matter."""

    __slots__ = ("attributes", "children", "line", "name", "text")

    def __init__(self, name: str, attributes: dict[str, str], line: int) -> None:
        self.name, self.attributes, self.line = name, attributes, line
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
    """Keeps the entry that is being read, and hands over those that are complete."""

    def __init__(self, locator: Any) -> None:
        super().__init__()
        self.complete: list[_Node] = []
        self.is_statement = False
        self._open: list[_Node] = []
        self._nodes = 0
        self._locator = locator

    @property
    def line(self) -> int:
        """The line that is being read."""
        return int(self._locator.getLineNumber() or 1)

    def startElement(self, name: str, attrs: Any) -> None:
        local = name.rpartition(":")[2]
        if local == "BkToCstmrStmt":
            self.is_statement = True
        if not self._open and local != "Ntry":
            return
        self._nodes += 1
        if self._nodes > NODES_IN_ENTRY_MAX:
            raise Unreadable(Fault(self.line, "Ntry", "The entry is too large."))
        node = _Node(local, dict(attrs.items()), self.line)
        if self._open:
            self._open[-1].children.append(node)
        self._open.append(node)

    def endElement(self, name: str) -> None:
        if not self._open:
            return
        node = self._open.pop()
        if not self._open:
            self.complete.append(node)
            self._nodes = 0

    def characters(self, content: str) -> None:
        if self._open and len(self._open[-1].text) < TEXT_LENGTH_MAX:
            self._open[-1].text += content


class CamtStatement:
    """A camt.053 file, read entry by entry in bounded memory."""

    tells_fees = True

    def __init__(self, chunks: Iterable[bytes], terms: Terms, *, zone_name: str) -> None:
        """Begin to read.

        zone_name: a bank's days are days of this zone, unless the channel names one.
        """
        self._chunks = chunks
        zone = terms.zone_name or zone_name
        with_time = Terms(columns=_NAMES, currency=terms.currency, zone_name=zone)
        self._with_time = RecordReader(with_time)
        self._of_day = RecordReader(
            Terms(columns=_NAMES, currency=terms.currency, zone_name=zone, date_format="%Y-%m-%d")
        )

    def rows(self) -> Iterator[Record | list[Fault]]:
        """Return each record or its faults. Raises: Unreadable, after the records that could be read."""
        parser = DefusedExpatParser(forbid_dtd=True, forbid_entities=True, forbid_external=True)
        handler = _Entries(parser)
        parser.setContentHandler(handler)
        try:
            for piece in _pieces(self._chunks):
                parser.feed(piece)
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
        entries, handler.complete = handler.complete, []
        for entry in entries:
            transactions = entry.all("NtryDtls/TxDtls")
            for transaction in transactions or [entry]:
                raw = _raw(entry, transaction, is_only=len(transactions) <= 1)
                reader = self._with_time if "T" in raw["time"] else self._of_day
                yield reader.read(transaction.line, raw)


def _raw(entry: _Node, transaction: _Node, *, is_only: bool) -> RawRecord:
    """Return an entry's transaction as a raw record.

    transaction: the entry itself where the bank says no more of it.
    is_only: whether what the entry says of itself is of this transaction alone.
    """
    amount = next((n for p in ("Amt", "AmtDtls/TxAmt/Amt", "AmtDtls/InstdAmt/Amt") for n in transaction.all(p)), None)
    if amount is None and is_only:
        amount = next(iter(entry.all("Amt")), None)
    reference = _reference(transaction.first("Refs/AcctSvcrRef", "Refs/TxId", "AcctSvcrRef"))
    if not reference and is_only:
        reference = _reference(entry.first("AcctSvcrRef", "NtryRef"))
    end_to_end = _reference(transaction.first("Refs/EndToEndId")) or _reference(transaction.first("Refs/InstrId"))
    fee = transaction.first("Chrgs/TtlChrgsAndTaxAmt", "Chrgs/Rcrd/Amt", "Chrgs/Amt")
    if not fee and is_only:
        fee = entry.first("Chrgs/TtlChrgsAndTaxAmt", "Chrgs/Rcrd/Amt", "Chrgs/Amt")
    booked = entry.first("BookgDt/DtTm", "BookgDt/Dt", "ValDt/DtTm", "ValDt/Dt")
    return {
        "upstream_ref": reference or end_to_end,
        "order_no": end_to_end,
        "amount": "" if amount is None else amount.text,
        "fee": fee,
        "currency": "" if amount is None else amount.attributes.get("Ccy", ""),
        "status": _status(entry, transaction),
        "time": booked,
    }


def _status(entry: _Node, transaction: _Node) -> str:
    """Return what became of a transaction: a booked entry was paid, a reversal or a return was given back."""
    if entry.first("RvslInd").lower() in ("true", "1") or transaction.all("RtrInf"):
        return "refunded"
    code = entry.first("Sts/Cd", "Sts")
    return {"BOOK": "success", "PDNG": "pending", "FUTR": "pending", "INFO": "pending", "": "success"}.get(code, code)


def _reference(text: str) -> str:
    return "" if text.upper() in _NO_REFERENCE else text


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut chunks so small that no more entries come together than fit."""
    for chunk in chunks:
        for start in range(0, len(chunk), FEED_BYTES):
            yield chunk[start : start + FEED_BYTES]
