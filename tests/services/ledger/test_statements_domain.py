"""What a row says by a channel's terms, what each format makes of it, and what is wrong with it."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from services.ledger.domain.statement_camt import CamtStatement
from services.ledger.domain.statement_csv import LINE_BYTES_MAX, CleanCsv, CsvStatement, NotClean, blocks
from services.ledger.domain.statement_lines import RecordLines
from services.ledger.domain.statement_mt940 import Mt940Statement
from services.ledger.domain.statements import Fault, Record, RecordReader, Terms, Unreadable

RAW: Any = {
    "upstream_ref": "u1", "order_no": "O-1", "amount": "12.50", "fee": "0.10", "currency": "CNY", "status": "success",
    "time": "2026-11-22T09:30:00+08:00",
}  # fmt: skip
HEADER = b"upstream_ref,order_no,amount,fee,currency,status,time\n"
ROW = b"u1,O-1,12.50,0.10,CNY,success,2026-11-22T09:30:00Z\n"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def read(terms: Terms | None = None, **fields: str) -> Any:
    return RecordReader(terms or Terms()).read(2, RAW | fields)


def rows_of(statement: Any) -> tuple[list[Any], Fault | None]:
    """Return all rows of a statement, and what it broke off at."""
    found: list[Any] = []
    try:
        for row in statement.rows():
            found.append(row)
    except Unreadable as error:
        return found, error.fault
    return found, None


def test_a_row_becomes_a_record_in_minor_units_and_utc() -> None:
    assert read() == Record(2, "u1", "O-1", 1250, 10, "CNY", "success", datetime(2026, 11, 22, 1, 30, tzinfo=UTC))


@pytest.mark.parametrize(
    ("fields", "column"),
    [
        ({"upstream_ref": ""}, "upstream_ref"),
        ({"upstream_ref": "a b"}, "upstream_ref"),
        ({"upstream_ref": "x" * 129}, "upstream_ref"),
        ({"upstream_ref": "号"}, "upstream_ref"),
        ({"order_no": "x" * 65}, "order_no"),
        ({"order_no": "a\nb"}, "order_no"),
        ({"amount": ""}, "amount"),
        ({"amount": "-1.00"}, "amount"),
        ({"amount": "1.234"}, "amount"),
        ({"amount": "1e3"}, "amount"),
        ({"amount": "1,000.00"}, "amount"),
        ({"amount": "9" * 20}, "amount"),
        ({"amount": "0.1", "currency": "JPY", "fee": "0"}, "amount"),
        ({"fee": "x"}, "fee"),
        ({"currency": ""}, "currency"),
        ({"currency": "XXQ"}, "currency"),
        ({"status": "paid"}, "status"),
        ({"time": "2026-11-22 09:30"}, "time"),
        ({"time": "2026-11-22T09:30:00"}, "time"),
        ({"time": "2026-02-30T09:30:00Z"}, "time"),
        ({"time": "20261122T093000Z"}, "time"),
        ({"time": "1970-01-01T00:00:00Z"}, "time"),
        ({"time": "now"}, "time"),
    ],
)
def test_what_is_wrong_is_named_by_its_column(fields: dict[str, str], column: str) -> None:
    [fault] = read(**fields)
    assert (fault.line, fault.column) == (2, column)


@pytest.mark.parametrize(
    ("fields", "changed"),
    [
        ({"order_no": " "}, {"order_no": None}),
        ({"order_no": "订单 7"}, {"order_no": "订单 7"}),
        ({"fee": ""}, {"fee": 0}),
        ({"fee": "-0.10"}, {"fee": -10}),
        ({"currency": " cny "}, {"currency": "CNY"}),
        ({"currency": "USDT", "amount": "0.000001"}, {"currency": "USDT", "amount": 1}),
        ({"status": " REFUNDED"}, {"status": "refunded"}),
        ({"time": "2026-11-22 12:00:00z"}, {"occurred_at": NOON}),
        ({"time": "2026-11-22T12:00:00.1234567Z"}, {"occurred_at": NOON.replace(microsecond=123456)}),
    ],
)
def test_what_is_written_otherwise_is_understood(fields: dict[str, str], changed: dict[str, Any]) -> None:
    record = read(**({"fee": "0"} | fields))
    assert isinstance(record, Record)
    assert {name: getattr(record, name) for name in changed} == changed


def test_a_channels_terms_say_how_it_writes() -> None:
    terms = Terms.of_config(
        {
            "statuses": {"Paid ": "success"},
            "date_format": "%d.%m.%Y %H:%M",
            "timezone": "Europe/Berlin",
            "currency": "EUR",
            "decimal_sign": ",",
        },
        zone_name="Asia/Shanghai",
    )
    record = read(terms, status="PAID", time="22.11.2026 13:00", currency="", amount="12,50", fee="0,10")
    assert record == Record(2, "u1", "O-1", 1250, 10, "EUR", "success", NOON)
    faults = read(terms, time="22.13.2026 00:00", amount="1.50", fee="0,10")
    assert [fault.column for fault in faults] == ["amount", "time"]
    platforms = Terms.of_config({"date_format": "%Y-%m-%d"}, zone_name="Asia/Shanghai")
    assert read(platforms, time="2026-11-22").occurred_at == datetime(2026, 11, 21, 16, tzinfo=UTC)
    local = Terms.of_config({"timezone": "Asia/Shanghai"}, zone_name="UTC")
    assert read(local, time="2026-11-22T20:00:00").occurred_at == NOON


def in_pieces(content: bytes, size: int) -> Iterable[bytes]:
    return (content[start : start + size] for start in range(0, len(content), size))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
def test_pieces_are_cut_where_lines_end(size: int) -> None:
    content = b"\xef\xbb\xbfab\ncde\r\n\nf"
    found = list(blocks(in_pieces(content, size)))
    assert b"".join(found) == content[3:]
    assert all(block.endswith(b"\n") for block in found[:-1])


def test_a_line_without_an_end_is_not_held_in_memory() -> None:
    def endless() -> Iterable[bytes]:
        yield b"a\n"
        while True:
            yield b"x" * 1000

    with pytest.raises(Unreadable) as refusal:
        list(blocks(endless()))
    assert refusal.value.fault.line == 2
    assert LINE_BYTES_MAX < 10**6


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_rows_are_found_whatever_surrounds_them(size: int) -> None:
    content = (
        b'\xef\xbb\xbf\r\n Upstream_Ref ;"order_no";AMOUNT;fee;currency;status;time;note\r\n\r\n'
        b'u1;O-1;12.50;0.10;CNY;success;2026-11-22T12:00:00Z;"two\r\nlines; one ""cell"""\r\n;;;;;;;\r\n'
        b"u2;;1.00;;CNY;failed;2026-11-22T12:00:00Z;x"
    )
    found, end = rows_of(CsvStatement(in_pieces(content, size), Terms()))
    assert end is None
    assert found == [
        Record(4, "u1", "O-1", 1250, 10, "CNY", "success", NOON), Record(7, "u2", None, 100, 0, "CNY", "failed", NOON),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        HEADER + ROW.replace(b"u1", b'"u""1"'),
        HEADER + ROW.replace(b"O-1", b'"O,1"'),
        HEADER + ROW.replace(b"O-1", b'"O-1'),
        HEADER + ROW * 100 + ROW.replace(b"u1", b'"u1"'),
        HEADER + b"\n" + ROW,
        b"\n" + HEADER + ROW,
        HEADER + ROW.replace(b"success", b" success"),
        HEADER + ROW.replace(b"12.50", b"012.50"),
        HEADER + ROW.replace(b"CNY", b"cny"),
        HEADER + ROW.replace(b"O-1", b"\xe5\x8f\xb7"),
        HEADER + ROW.replace(b"2026-11-22T", b"2026-13-22T"),
        HEADER + ROW + b"\\.\n" + ROW,
        HEADER + ROW + b"u1,O-1\n",
        HEADER + ROW.replace(b"\n", b"\r") + ROW,
        HEADER.replace(b"time", b'"time') + ROW,
        b"\xff\xfe" + HEADER,
        b"",
    ],
)
def test_what_needs_reading_is_not_clean(content: bytes) -> None:
    with pytest.raises(NotClean):
        list(CleanCsv([content], Terms()).blocks())


@pytest.mark.parametrize(
    ("row", "are_comparable"),
    [
        (ROW, True),
        (ROW.replace(b"\n", b"\r\n"), True),
        (ROW.strip(), True),
        (ROW.replace(b":00Z", b":00.5Z"), False),
        (ROW.replace(b"Z", b"-03:30"), False),
        (ROW.replace(b"O-1", b"").replace(b"0.10", b"").replace(b"success", b"SUCCESS"), True),
    ],
)
def test_what_needs_no_reading_is_clean(row: bytes, are_comparable: bool) -> None:
    clean = CleanCsv([HEADER + ROW, row], Terms())
    assert b"".join(clean.blocks()).count(b"\n") == 2
    assert clean.has_comparable_times == are_comparable


def test_quotation_marks_that_hold_nothing_special_are_clean() -> None:
    quoted = b'"' + ROW.strip().replace(b",", b'","') + b'"\n'
    lines = RecordLines(
        CleanCsv([HEADER.replace(b"time", b'"time"') + quoted + ROW], Terms()), Terms(), constants=["c"]
    )
    expected = "u1|O-1|1250|010|CNY|success|2026-11-22T09:30:00Z|{}|c\n".replace("|", "\t")
    assert b"".join(lines.blocks()).decode() == expected.format(2) + expected.format(3)
    assert (lines.rows, lines.first_occurred_at) == (2, datetime(2026, 11, 22, 9, 30, tzinfo=UTC))


def test_only_a_zone_whose_clocks_never_change_is_clean() -> None:
    header = b"upstream_ref,amount,currency,status,time\n"
    config = {"date_format": "%Y/%m/%d %H:%M:%S"}
    for zone, suffix in {"Asia/Shanghai": "+08:00", "Asia/Kolkata": "+05:30", "UTC": "+00:00"}.items():
        assert CleanCsv([header], Terms.of_config(config | {"timezone": zone}, zone_name="UTC")).time_suffix == suffix
    for further in ({"timezone": "Europe/Berlin"}, {"date_format": "%d.%m.%Y"}):
        with pytest.raises(NotClean):
            CleanCsv([header], Terms.of_config(config | further, zone_name="UTC"))


MT940 = """{1:F01BANKDEFFXXX}{2:I940}{4:
:20:START
:25:10020030/1234567
:28C:00001/001
:60F:C261121EUR1000,00
:61:2611221122C12,50NTRFORD-1//BANK1
:86:166?00CREDIT?20EREF+ORDER-1?21more?32NAME
:61:2612310102RD7,NTRFNONREF//BANK2
/OCMT/EUR7,00/
:86:/EREF/ORDER-
2/REMI/foo
:61:garbage
:61:261122D1,5NMSCREF3
:86:ORDER-3
:62F:C261122EUR1012,50
-}
"""


def test_each_line_of_mt940_is_a_record_and_a_wrong_one_spoils_no_other() -> None:
    for size in (1, 17, 10_000):
        found, end = rows_of(Mt940Statement(in_pieces(MT940.encode(), size), Terms(), zone_name="UTC"))
        assert end is None
        day = datetime(2026, 11, 22, tzinfo=UTC)
        assert found == [
            Record(6, "BANK1", "ORDER-1", 1250, 0, "EUR", "success", day),
            Record(8, "BANK2", "ORDER-2", 700, 0, "EUR", "refunded", datetime(2027, 1, 2, tzinfo=UTC)),
            [Fault(12, ":61:", "Not a statement line of MT940.")],
            Record(13, "REF3", "ORDER-3", 150, 0, "EUR", "success", day),
        ]


def test_what_is_no_mt940_says_so() -> None:
    found, end = rows_of(Mt940Statement([HEADER + ROW], Terms(), zone_name="UTC"))
    assert (found, end is not None and end.message[:21]) == ([], "The file is no MT940:")


CAMT = """<?xml version="1.0" encoding="UTF-8"?>
<n:Document xmlns:n="urn:iso:std:iso:20022:tech:xsd:camt.053.001.02"><n:BkToCstmrStmt><n:Stmt>
<n:Ntry><n:NtryRef>E1</n:NtryRef><n:Amt Ccy="EUR">12.50</n:Amt><n:Sts>BOOK</n:Sts>
<n:BookgDt><n:DtTm>2026-11-22T12:00:00Z</n:DtTm></n:BookgDt></n:Ntry>
<n:Ntry><n:Amt Ccy="EUR">5</n:Amt><n:RvslInd>true</n:RvslInd><n:Sts><n:Cd>BOOK</n:Cd></n:Sts>
<n:ValDt><n:Dt>2026-11-22</n:Dt></n:ValDt><n:NtryDtls>
<n:TxDtls><n:Refs><n:AcctSvcrRef>B2</n:AcctSvcrRef><n:EndToEndId>NOTPROVIDED</n:EndToEndId></n:Refs>
<n:Amt Ccy="EUR">2</n:Amt><n:Chrgs><n:Rcrd><n:Amt Ccy="EUR">0.10</n:Amt></n:Rcrd></n:Chrgs></n:TxDtls>
<n:TxDtls><n:Refs><n:EndToEndId>O-3</n:EndToEndId></n:Refs><n:AmtDtls><n:TxAmt>
<n:Amt Ccy="EUR">3</n:Amt></n:TxAmt></n:AmtDtls></n:TxDtls>
<n:TxDtls><n:Refs><n:AcctSvcrRef>B4</n:AcctSvcrRef></n:Refs></n:TxDtls>
</n:NtryDtls></n:Ntry></n:Stmt></n:BkToCstmrStmt></n:Document>"""


def test_each_transaction_of_camt_is_a_record() -> None:
    for size in (1, 100, 10_000):
        found, end = rows_of(CamtStatement(in_pieces(CAMT.encode(), size), Terms(), zone_name="UTC"))
        assert end is None
        day = datetime(2026, 11, 22, tzinfo=UTC)
        assert found[:3] == [
            Record(3, "E1", None, 1250, 0, "EUR", "success", NOON),
            Record(7, "B2", None, 200, 10, "EUR", "refunded", day),
            Record(9, "O-3", "O-3", 300, 0, "EUR", "refunded", day),
        ]
        # An amount of three transactions together is nobody's.
        assert {(fault.line, fault.column) for fault in found[3]} == {(11, "Amt"), (11, "Ccy")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'<!DOCTYPE a [<!ENTITY x "y">]><Document>&x;</Document>', "document type"),
        (b'<!DOCTYPE a SYSTEM "http://127.0.0.1/x"><Document/>', "document type"),
        (b"<Document><BkToCstmrStmt></Document>", "Not well-formed"),
        (b"<Document><BkToCstmrStmt>", "Not well-formed"),
        (b"<Document/>", "no camt.053"),
        (b"", "no camt.053"),
    ],
)
def test_xml_that_is_no_statement_says_why(content: bytes, message: str) -> None:
    found, end = rows_of(CamtStatement([content], Terms(), zone_name="UTC"))
    assert found == []
    assert end is not None
    assert message in end.message
