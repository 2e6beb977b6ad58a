"""What is written in any format, by any channel's terms, is read as it was meant; spoiled, it is no other amount.

Each test writes a file by a hand of its own, which shares nothing with the parsers.
"""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final, NamedTuple
from xml.sax.saxutils import escape
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.ledger.domain.statement_camt import CamtStatement
from services.ledger.domain.statement_csv import CleanCsv, CsvStatement, NotClean
from services.ledger.domain.statement_lines import RecordLines
from services.ledger.domain.statement_mt940 import Mt940Statement
from services.ledger.domain.statements import FIELDS, Record, Terms, Unreadable

DIGITS: Final = {"CNY": 2, "EUR": 2, "JPY": 0, "KWD": 3, "USDT": 6}
on_any_machine: Final = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FEES: Final = st.integers(-(10**4), 10**4)
VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F)))


class Paid(NamedTuple):
    """A payment, as a platform has it in its own books."""

    ref: str
    order_no: str
    minor: int
    fee: int
    currency: str
    status: str
    at: datetime


def decimal(minor: int, currency: str) -> str:
    return f"{Decimal(minor).scaleb(-DIGITS[currency]):f}"


def paid(
    *,
    signs: str = VISIBLE,
    fees: st.SearchStrategy[int] = FEES,
    statuses: tuple[str, ...] = ("pending", "success", "failed", "refunded"),
    currencies: tuple[str, ...] = tuple(DIGITS),
) -> st.SearchStrategy[Paid]:
    text = st.text(signs, min_size=1, max_size=20)
    at = st.datetimes(datetime(1991, 1, 1), datetime(2099, 12, 30)).map(_on_a_full_second)
    return st.builds(
        Paid,
        ref=text,
        order_no=st.just("") | text,
        minor=st.integers(0, 10**6) | st.integers(0, 2**63 - 1),
        fee=fees,
        currency=st.sampled_from(currencies),
        status=st.sampled_from(statuses),
        at=at,
    )


def _on_a_full_second(at: datetime) -> datetime:
    """Return a time of a day that every year has."""
    return at.replace(microsecond=0, day=min(at.day, 28))


def in_pieces(draw: st.DrawFn, content: bytes) -> list[bytes]:
    """Cut a file anywhere."""
    cuts = sorted(draw(st.lists(st.integers(0, len(content)), max_size=4)))
    edges = [0, *cuts, len(content)]
    return [content[start:end] for start, end in pairwise(edges)]


def meant(row: Paid, *, line: int, zone: str, order_no: str | None = None) -> Record:
    at = row.at.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    return Record(line, row.ref, row.order_no or None, row.minor, row.fee, row.currency, row.status, at)


WORDS: Final = {"pending": "等待", "success": "Paid (ok)", "failed": "CLOSED", "refunded": "Money back"}
NAMES: Final = {name: f"The {name} of, it" for name in FIELDS}
FORMATS: Final = ("%Y-%m-%d %H:%M:%S", "%d.%m.%Y %H:%M:%S", "%Y/%m/%dT%H:%M:%S", "%m/%d/%y %I:%M:%S %p")


class Written(NamedTuple):
    """A file of CSV, the terms that it is written by, and what it means."""

    content: bytes
    terms: Terms
    records: list[Record]


@st.composite
def csv_files(draw: st.DrawFn) -> Written:
    """Return a CSV file by any terms, with whatever a spreadsheet puts around its cells."""
    delimiter = draw(st.sampled_from([",", ";", "\t", "|"]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    date_format = draw(st.sampled_from([None, *FORMATS]))
    zone = draw(st.sampled_from(["Asia/Shanghai", "Europe/Berlin", "America/St_Johns", "UTC"]))
    sign = draw(st.sampled_from([".", ","]))
    one_currency = draw(st.sampled_from([None, *DIGITS]))
    is_renamed = draw(st.booleans())
    config: dict[str, Any] = {"timezone": zone, "decimal_sign": sign, "currency": one_currency}
    config |= {"date_format": date_format} if date_format else {}
    config |= {"columns": NAMES, "statuses": {word: status for status, word in WORDS.items()}} if is_renamed else {}
    config |= {"delimiter": delimiter} if draw(st.booleans()) else {}
    fields = [name for name in FIELDS if name != "currency" or one_currency is None]
    further = draw(st.lists(st.sampled_from(["note", "备注", "a,b;c", ""]), unique=True, max_size=2))
    columns = draw(st.permutations([*fields, *(f"+{name}" for name in further)]))
    currencies = (one_currency,) if one_currency else tuple(DIGITS)
    rows = draw(st.lists(paid(currencies=currencies), min_size=1, max_size=6, unique_by=lambda row: row.ref))
    if "%y" in (date_format or ""):  # which means the years from 1969 to 2068
        rows = [row._replace(at=row.at.replace(year=2000 + row.at.year % 60)) for row in rows]
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    file = io.StringIO(newline="")
    file.write(draw(st.sampled_from(["", "\ufeff"])) + draw(st.sampled_from(["", end])))
    writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerow([_name(column, is_renamed=is_renamed) for column in columns])
    note = st.sampled_from(["", "x", "two\nlines", 'a "word"', "a,b;c\t|", "订单", "\0"])
    records: list[Record] = []
    for row in rows:
        file.write(draw(st.sampled_from(["", "", end, f" {end}"])))
        line = file.getvalue().count("\n") + 1
        cells = _cells(row, date_format=date_format, sign=sign, words=WORDS if is_renamed else {})
        writer.writerow([draw(note) if column.startswith("+") else cells[column] for column in columns])
        records.append(meant(row, line=line, zone=zone if date_format else "UTC"))
    text = file.getvalue()
    content = (text.rstrip("\r\n") if draw(st.booleans()) else text + draw(st.sampled_from(["", end * 3]))).encode()
    return Written(content, Terms.of_config(config, zone_name="UTC"), records)


def _name(column: str, *, is_renamed: bool) -> str:
    if column.startswith("+"):
        return column[1:]
    return NAMES[column] if is_renamed else column.upper()


def _cells(row: Paid, *, date_format: str | None, sign: str, words: dict[str, str]) -> dict[str, str]:
    return {
        "upstream_ref": row.ref,
        "order_no": row.order_no,
        "amount": decimal(row.minor, row.currency).replace(".", sign),
        "fee": decimal(row.fee, row.currency).replace(".", sign) if row.fee else "",
        "currency": row.currency,
        "status": words.get(row.status, row.status),
        "time": row.at.strftime(date_format) if date_format else f"{row.at.isoformat()}Z",
    }


@on_any_machine
@given(csv_files(), st.data())
def test_csv_by_any_terms_means_what_was_written(written: Written, data: st.DataObject) -> None:
    pieces = in_pieces(data.draw, written.content)
    assert list(CsvStatement(pieces, written.terms).rows()) == written.records
    for found, record in zip(copied(pieces, written.terms), written.records, strict=False):
        assert found == record


def copied(pieces: list[bytes], terms: Terms) -> Iterator[Record]:
    """Return what a file becomes that goes to the database as it is; nothing of one that does not."""
    try:
        lines = RecordLines(CleanCsv(pieces, terms), terms)
        text = b"".join(lines.blocks()).decode()
    except NotClean:
        return
    for cells in csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE):
        ref, order_no, amount, fee, currency, status, time, line = cells
        at = datetime.fromisoformat(time.replace("/", "-")).astimezone(UTC)
        yield Record(int(line), ref, order_no or None, int(amount), int(fee), currency, status, at)


@on_any_machine
@given(csv_files(), st.data())
def test_csv_that_is_spoiled_is_a_fault_or_what_it_says_now(written: Written, data: st.DataObject) -> None:
    content = bytearray(written.content)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=2) | st.sampled_from([b'"', b",", b";", b"\n", b"\r\n", b"0", b"-", b"\xff\xfe"])
        )
    found: list[Any] = []
    try:
        found.extend(CsvStatement(in_pieces(data.draw, bytes(content)), written.terms).rows())
    except Unreadable as error:
        found.append([error.fault])
    records = [row for row in found if isinstance(row, Record)]
    by_line = _cells_by_line(bytes(content), written.terms) if records else {}
    for record in records:
        cells = by_line[record.line]
        amount, fee = (cells[name].replace(",", ".") if name in cells else "" for name in ("amount", "fee"))
        assert Decimal(record.amount) == Decimal(amount).scaleb(DIGITS_OF[record.currency])
        assert Decimal(record.fee) == Decimal(fee or 0).scaleb(DIGITS_OF[record.currency])
        assert record.upstream_ref == cells["upstream_ref"]
    assert all(fault.line >= 1 and fault.message for row in found if isinstance(row, list) for fault in row)
    for clean, record in zip(copied([bytes(content)], written.terms), found, strict=False):
        assert clean == record


class _Digits(dict[str, int]):
    """The fraction digits of any currency that a spoiled file may come to name."""

    def __missing__(self, currency: str) -> int:
        from iso4217 import Currency

        return int(Currency(currency).exponent)


DIGITS_OF: Final = _Digits(DIGITS)


def _cells_by_line(content: bytes, terms: Terms) -> dict[int, dict[str, str]]:
    """Read a file as simply as can be: at once, by the delimiter that makes the most of its header."""
    text = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    lines = io.StringIO(text, newline="").readlines()
    start = next(number for number, line in enumerate(lines) if line.strip())
    names = {name.casefold(): field for field, name in terms.columns.items()}
    best: dict[int, dict[str, str]] = {}
    for delimiter in [terms.delimiter] if terms.delimiter else [",", ";", "\t", "|"]:
        reader = csv.reader(lines[start:], delimiter=str(delimiter))
        header = [names.get(cell.strip().casefold()) for cell in next(reader)]
        if sum(map(bool, header)) < 4:
            continue
        line = start + reader.line_num + 1
        try:
            for cells in reader:
                best.setdefault(line, {}).update(
                    {name: cell.strip() for name, cell in zip(header, cells, strict=False) if name}
                )
                line = start + reader.line_num + 1
        except csv.Error:
            pass
    return best


@st.composite
def mt940_files(draw: st.DrawFn) -> tuple[bytes, list[Record], str]:
    """Return messages of MT940 as banks of several countries write them."""
    end = draw(st.sampled_from(["\n", "\r\n"]))
    zone = draw(st.sampled_from(["Asia/Shanghai", "Europe/Berlin", "UTC"]))
    signs = VISIBLE.replace("/", "").replace("?", "").replace("+", "").replace(":", "").replace("-", "")
    lines: list[str] = []
    records: list[Record] = []
    for number in range(draw(st.integers(1, 3))):
        currency = draw(st.sampled_from(list(DIGITS)))
        rows = draw(st.lists(paid(signs=signs, fees=st.just(0), statuses=("success", "refunded")), max_size=4))
        balance = draw(st.integers(-(10**12), 10**12))
        has_blocks = draw(st.booleans())
        lines += ["{1:F01BANKDEFFXXX0000000000}{2:I940BANKDEFFXXXN}{4:"] if has_blocks else []
        lines += [f":20:M{number}", ":25:1/2", ":28C:1/1", f":60F:{_balance(balance, currency)}"]
        for row in rows:
            is_debit, is_short = draw(st.booleans()), draw(st.booleans())
            day = row.at.replace(year=2000 + row.at.year % 100)
            value_date = day + timedelta(0 if is_short else draw(st.integers(-20, 20)))
            value_date = min(max(value_date, datetime(2000, 1, 1)), datetime(2099, 12, 31))
            mark = ("R" if row.status == "refunded" else "") + ("D" if is_debit else "C")
            dates = f"{value_date:%y%m%d}" + ("" if is_short else f"{day:%m%d}")
            funds = draw(st.sampled_from(["", currency[-1]]))
            lines.append(f":61:{dates}{mark}{funds}{_comma(row.minor, currency)}NTRFNONREF//{row.ref}")
            lines += draw(st.sampled_from([[], ["/OCMT/EUR1,/", "/CHGS/EUR0,1/"]]))
            head = f":61:{dates}"
            line = next(n for n in range(len(lines), 0, -1) if lines[n - 1].startswith(head))
            lines += _details(draw, row.order_no)
            balance += row.minor * (-1 if (mark in ("D", "RC")) else 1)
            midnight = day.replace(hour=0, minute=0, second=0)
            records.append(meant(row._replace(currency=currency, at=midnight), line=line, zone=zone))
        lines += [f":62F:{_balance(balance, currency)}", f":64:{_balance(balance, currency)}", ":86:of the whole"]
        lines += ["-}{5:{CHK:0}}"] if has_blocks else ["-"]
    return (end.join(lines) + draw(st.sampled_from(["", end, end * 2]))).encode(), records, zone


def _comma(minor: int, currency: str) -> str:
    text = decimal(abs(minor), currency).replace(".", ",")
    return text if "," in text else f"{text},"


def _balance(minor: int, currency: str) -> str:
    return f"{'D' if minor < 0 else 'C'}261122{currency}{_comma(minor, currency)}"


def _details(draw: st.DrawFn, order_no: str) -> list[str]:
    """Return what stands beside a line; without an order number, nothing that could be one."""
    if not order_no:
        return draw(st.sampled_from([[], [":86:two words"], [":86:/EREF/NOTPROVIDED/REMI/x"]]))
    written = [
        f":86:/TRCD/00100/EREF/{order_no}/REMI/x",
        f":86:166?00CREDIT?109310?20EREF+{order_no}?21KREF+1?22SVWZ+for something?32NAME",
        f":86:166?00CREDIT?20SVWZ+{'x' * 22}?21{'y' * 27}?22EREF+{order_no}?32NAME",
        f":86:{order_no}",
    ]
    text = draw(st.sampled_from(written))
    width = draw(st.sampled_from([65, 69]))
    return [text[start : start + width] for start in range(0, len(text), width)]


@on_any_machine
@given(mt940_files(), st.data())
def test_mt940_means_what_was_written(written: tuple[bytes, list[Record], str], data: st.DataObject) -> None:
    content, records, zone = written
    pieces = in_pieces(data.draw, content)
    assert list(Mt940Statement(pieces, Terms(), zone_name=zone).rows()) == records


@on_any_machine
@given(mt940_files(), st.data())
def test_mt940_that_is_cut_off_or_lacks_a_line_is_told(
    written: tuple[bytes, list[Record], str], data: st.DataObject
) -> None:
    content, records, zone = written
    lines = content.decode().splitlines()
    of_money = [n for n, line in enumerate(lines) if line.startswith(":61:") and records]
    amounts = dict(zip(of_money, (record.amount for record in records), strict=False))
    places = [n for n in of_money if amounts[n]]
    if places:
        place = data.draw(st.sampled_from(places))
        spoiled = ["x" + line if n == place else line for n, line in enumerate(lines)]  # a line that is none
        found = list(Mt940Statement(["\n".join(spoiled).encode()], Terms(), zone_name=zone).rows())
        assert any(isinstance(row, list) for row in found)
    whole = content.index(b":62F:")
    cut = content[: data.draw(st.integers(content.index(b":60F:") + 5, whole))]
    assert any(isinstance(row, list) for row in Mt940Statement([cut], Terms(), zone_name=zone).rows())


CDATA: Final = "(text)"
CODES: Final = {"success": "BOOK", "pending": "PDNG"}


@st.composite
def camt_files(draw: st.DrawFn) -> tuple[bytes, list[Record], str]:
    """Return camt.053 of any version, by whatever prefix, a transaction or several an entry."""
    version = draw(st.sampled_from(["02", "04", "06", "08", "12"]))
    prefix = draw(st.sampled_from(["", "n:"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-16", "iso-8859-1", "windows-1252"]))
    zone = draw(st.sampled_from(["Asia/Shanghai", "Europe/Berlin", "UTC"]))
    xmlns = f'xmlns{":n" if prefix else ""}="urn:iso:std:iso:20022:tech:xsd:camt.053.001.{version}"'
    entries: list[list[Paid]] = draw(
        st.lists(st.lists(paid(fees=st.integers(0, 999)), min_size=1, max_size=3), min_size=1, max_size=4)
    )
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n<Document {xmlns}><BkToCstmrStmt><GrpHdr/><Stmt>'
    records: list[Record] = []
    for rows in entries:
        currency, at, status = rows[0].currency, rows[0].at, draw(st.sampled_from(["success", "pending", "refunded"]))
        has_time = draw(st.booleans())
        day = f"<DtTm>{at.isoformat()}</DtTm>" if has_time else f"<Dt>{at.date().isoformat()}</Dt>"
        at = at if has_time else at.replace(hour=0, minute=0, second=0)
        code = CODES.get(status, "BOOK")
        text += (
            f'\n<Ntry><NtryRef>1</NtryRef><Amt Ccy="{currency}">{decimal(sum(r.minor for r in rows), currency)}</Amt>'
        )
        text += f"<CdtDbtInd>CRDT</CdtDbtInd><RvslInd>{str(status == 'refunded').lower()}</RvslInd>"
        text += f"<Sts>{code if version == '02' else f'<Cd>{code}</Cd>'}</Sts><BookgDt>{day}</BookgDt><NtryDtls>"
        for row in rows:
            text += f"\n<TxDtls>{_transaction(row, currency, version)}</TxDtls>"
            line = text.count("\n") + 1
            written = row._replace(currency=currency, at=at, status=status)
            records.append(meant(written, line=line, zone=zone))
        text += "</NtryDtls></Ntry>"
    text += "</Stmt></BkToCstmrStmt></Document>"
    text = text.replace("<", f"<{prefix}").replace(f"<{prefix}/", f"</{prefix}").replace(f"<{prefix}?", "<?")
    return text.replace(CDATA, "<![CDATA[<Ntry>]]>").encode(encoding), records, zone


def _transaction(row: Paid, currency: str, version: str) -> str:
    amount = f'<Amt Ccy="{currency}">{decimal(row.minor, currency)}</Amt>'
    parts = [decimal(part, currency) for part in (row.fee // 3, row.fee - row.fee // 3)]
    if version == "02":
        charges = "".join(f'<Chrgs><Amt Ccy="{currency}">{part}</Amt></Chrgs>' for part in parts)
        amount = f"<AmtDtls><TxAmt>{amount}</TxAmt></AmtDtls>"
    else:
        charged = "".join(f'<Rcrd><Amt Ccy="{currency}">{part}</Amt></Rcrd>' for part in parts)
        charges = f"<Chrgs>{charged}</Chrgs>"
    order_no = escape(row.order_no or "NOTPROVIDED")
    refs = f"<Refs><AcctSvcrRef>{escape(row.ref)}</AcctSvcrRef><EndToEndId>{order_no}</EndToEndId></Refs>"
    return f"{refs}{amount}{charges}<RmtInf><Ustrd>für {CDATA}</Ustrd></RmtInf>"


@on_any_machine
@given(camt_files(), st.data())
def test_camt_means_what_was_written(written: tuple[bytes, list[Record], str], data: st.DataObject) -> None:
    content, records, zone = written
    pieces = in_pieces(data.draw, content)
    assert list(CamtStatement(pieces, Terms(), zone_name=zone).rows()) == records
