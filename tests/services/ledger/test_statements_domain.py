"""What a row says by a channel's terms, what each format makes of it, and what is wrong with it."""

import itertools
import tracemalloc
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


def test_a_cell_that_is_too_long_is_a_fault_of_its_row_and_no_open_quotation_mark() -> None:
    content = HEADER.replace(b"time", b"time,note") + ROW.strip() + b"," + b"x" * 140_000 + b"\n" + ROW.strip() + b",\n"
    found, end = rows_of(CsvStatement([content], Terms()))
    assert end is None
    assert found[0] == [Fault(2, None, "A cell has at most 131072 signs.")]
    assert isinstance(found[1], Record)
    endless, end = rows_of(CsvStatement([HEADER + b'"' + b"x\n" * 140_000], Terms()))
    assert (endless, end is not None and end.message[:24]) == ([], "A quotation mark opens h")


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("29.03.2026 01:59", "2026-03-29T00:59:00+00:00"),
        ("29.03.2026 02:30", "2026-03-29T01:30:00+00:00"),  # which the clocks skip
        ("29.03.2026 03:00", "2026-03-29T01:00:00+00:00"),
        ("25.10.2026 02:30", "2026-10-25T00:30:00+00:00"),  # which they show twice
    ],
)
def test_a_time_that_the_clocks_skip_or_repeat_has_one_meaning(text: str, instant: str) -> None:
    terms = Terms.of_config({"date_format": "%d.%m.%Y %H:%M", "timezone": "Europe/Berlin"}, zone_name="UTC")
    assert read(terms, time=text).occurred_at.isoformat() == instant


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
            [Fault(12, ":61:", "Not a statement line of MT940, which begins as 2611221122C12,50NTRF.")],
            Record(13, "REF3", "ORDER-3", 150, 0, "EUR", "success", day),
        ]


def mt940(*lines: str, opening: str = "C261121EUR0,", closing: str | None = None) -> Any:
    """Return what a statement of these lines becomes; without a closing balance, all but what that says."""
    fields = [":20:A", ":25:1", ":28C:1", f":60F:{opening}", *lines, f":62F:{closing or 'C261122EUR9999,'}", "-"]
    found, end = rows_of(Mt940Statement(["\n".join(fields).encode()], Terms(), zone_name="UTC"))
    assert end is None
    return found if closing else [row for row in found if isinstance(row, Record) or row[0].column != ":62F:"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # value date, entry date, mark, funds code
        ("2611221122C12,50NTRFR//B", ("B", "R", 1250, "success", "2026-11-22")),
        ("261122C12,50NTRFR//B", ("B", "R", 1250, "success", "2026-11-22")),
        ("261122    C12,50NTRFR//B", ("B", "R", 1250, "success", "2026-11-22")),
        ("2611221122D12,50NTRFR//B", ("B", "R", 1250, "success", "2026-11-22")),
        ("2611221122CR12,50NTRFR//B", ("B", "R", 1250, "success", "2026-11-22")),
        ("2611221122RC12,50NTRFR//B", ("B", "R", 1250, "refunded", "2026-11-22")),
        ("2611221122RDR12,50NTRFR//B", ("B", "R", 1250, "refunded", "2026-11-22")),
        ("2612310102C1,NTRFR//B", ("B", "R", 100, "success", "2027-01-02")),
        ("2701021231C1,NTRFR//B", ("B", "R", 100, "success", "2026-12-31")),
        ("2803010229C1,NTRFR//B", ("B", "R", 100, "success", "2028-02-29")),
        # amounts
        ("2611221122C,05NTRFR//B", ("B", "R", 5, "success", "2026-11-22")),
        ("2611221122C000000000012,5NTRFR//B", ("B", "R", 1250, "success", "2026-11-22")),
        ("2611221122C1234567890123,45NTRFR//B", ("B", "R", 123456789012345, "success", "2026-11-22")),
        # references, which some banks write longer than SWIFT has them
        (f"2611221122C1,NTRF{'R' * 30}", ("R" * 30, None, 100, "success", "2026-11-22")),
        (f"2611221122C1,NTRF{'R' * 30}//{'B' * 40}", ("B" * 40, "R" * 30, 100, "success", "2026-11-22")),
        ("2611221122C1,S103R//\nfurther\nlines", ("R", None, 100, "success", "2026-11-22")),
        ("2611221122C1,NTRFKREF+//B", ("B", None, 100, "success", "2026-11-22")),
    ],
)
def test_a_statement_line_of_mt940_is_read_to_its_last_sign(line: str, expected: tuple[Any, ...]) -> None:
    [record] = mt940(f":61:{line}")
    assert (record.upstream_ref, record.order_no, record.amount, record.status) == expected[:4]
    assert record.occurred_at == datetime.fromisoformat(expected[4]).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("2611221122C12.50NTRFR//B", ":61:"),
        ("2611221122C1.234,50NTRFR//B", ":61:"),
        ("2611221122C1,2,3NTRFR//B", ":61:"),
        ("2611221122C12,50", ":61:"),
        ("2611221122C,NTRFR//B", ":61:"),
        ("2611221122C-1,NTRFR//B", ":61:"),
        ("2611221122C\u0661,NTRFR//B", ":61:"),
        ("2611221122EC1,NTRFR//B", ":61:"),
        ("2611221122rc1,NTRFR//B", ":61:"),
        ("2611321122C1,NTRFR//B", ":61: date"),
        ("2703010229C1,NTRFR//B", ":61: date"),
        ("2611221122C1,505NTRFR//B", ":61: amount"),
        ("2611221122C99999999999999999999,NTRFR//B", ":61: amount"),
        ("2611221122C1,NTRFNONREF", ":61: reference"),
    ],
)
def test_what_is_no_statement_line_of_mt940_is_a_fault_and_no_other_amount(line: str, column: str) -> None:
    [[fault]] = mt940(f":61:{line}")
    assert (fault.line, fault.column) == (5, column)


@pytest.mark.parametrize(
    ("details", "order_no"),
    [
        ("166?00CREDIT?20EREF+O-1?21more", "O-1"),
        ("166?00CREDIT?20EREF+O-1\n?21more", "O-1"),
        ("166?00CREDIT?20SVWZ+some\nthing?21EREF+O-\n1?22more", "O-1"),
        ("166?20EREF+" + "O" * 22 + "?21PPP?22more", "O" * 22 + "PPP"),
        ("166?20EREF+" + "O" * 22 + "?21KREF+PPP", "O" * 22),
        ("/TRCD/00100/EREF/O-1/REMI/x", "O-1"),
        ("EREF: O-1\nREMI: x", "O-1"),
        ("O-1", "O-1"),
        ("166?00CREDIT?20EREF+NOTPROVIDED", None),
        ("/EREF/NOTPROVIDED/REMI/x", None),
        ("two words", None),
    ],
)
def test_the_order_number_is_found_in_what_banks_write_beside_a_line(details: str, order_no: str | None) -> None:
    [record] = mt940(f":61:2611221122C1,NTRFNONREF//B\n:86:{details}")
    assert record.order_no == order_no


def test_balances_of_mt940_have_to_add_up() -> None:
    lines = [":61:261122C12,5NTRFR//1", ":61:261122D3,NTRFR//2", ":61:261122RC2,NTRFR//3", ":61:261122RD1,00NTRFR//4"]
    assert len(mt940(*lines, opening="D261121EUR10,", closing="D261122EUR1,50")) == 4
    told = "The opening balance and the lines come to -1.50 EUR, but here stands"
    assert mt940(*lines, opening="D261121EUR10,", closing="C261122EUR1,50")[4:] == [
        [Fault(9, ":62F:", f"{told} 1.50 EUR.")]
    ]
    assert mt940(*lines, opening="D261121EUR10,", closing="D261122USD1,50")[4:] == [
        [Fault(9, ":62F:", f"{told} -1.50 USD.")]
    ]
    # What a wrong line would have added is not known.
    assert len(mt940(*lines[:3], ":61:261122RD1.00NTRFR//4", opening="D261121EUR10,", closing="C261122EUR7,")) == 4
    assert [row[0].column for row in mt940(closing="261122EUR0")] == [":62F:"]
    unknown = mt940(lines[0], opening="C261121EUR 0,00", closing="C261122EUR12,5")
    assert [[(fault.line, fault.column) for fault in row] for row in unknown] == [[(4, ":60F:")], [(5, ":60F:")]]


def test_each_message_of_mt940_has_its_own_currency_and_its_end() -> None:
    message = ":20:A\r\n:60F:C261121{0}0,\r\n:61:261122C7,NTRFR//{0}\r\n:62F:C261122{0}7,\r\n-}}{{5:{{CHK:1}}}}\r\n"
    second = message.format("USDT").replace(":60F:C261121USDT0,\r\n", "")
    content = "{1:F01X}{2:I940}{4:\r\n" + message.format("JPY") + message.format("USDT") + second
    found, end = rows_of(Mt940Statement([content.encode()], Terms(), zone_name="UTC"))
    assert end is None
    assert [(row.currency, row.amount) for row in found[:2]] == [("JPY", 7), ("USDT", 7_000_000)]
    [fault] = found[2]
    assert (fault.line, fault.column) == (13, ":60F:")
    cut = content[: content.index(":62F:")]
    assert rows_of(Mt940Statement([cut.encode()], Terms(), zone_name="UTC"))[0][1:] == [
        [Fault(3, ":62F:", "The statement that begins here has no closing balance.")]
    ]


@pytest.mark.parametrize("sign", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_no_sign_in_a_text_begins_a_line_that_no_editor_shows(sign: str) -> None:
    [record] = mt940(f":61:261122C1,NTRFNONREF//B\n:86:x{sign}:61:261122C9,NTRFNONREF//C")
    assert (record.upstream_ref, record.amount) == ("B", 100)


def test_what_is_no_mt940_says_so() -> None:
    found, end = rows_of(Mt940Statement([HEADER + ROW], Terms(), zone_name="UTC"))
    assert (found, end is not None and end.message[:21]) == ([], "The file is no MT940:")


CAMT = """<?xml version="1.0" encoding="UTF-8"?>
<n:Document xmlns:n="urn:iso:std:iso:20022:tech:xsd:camt.053.001.02"><n:BkToCstmrStmt><n:Stmt>
<n:Ntry><n:NtryRef>7</n:NtryRef><n:AcctSvcrRef>E1</n:AcctSvcrRef><n:Amt Ccy="EUR">12.50</n:Amt><n:Sts>BOOK</n:Sts>
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
        (b"<BkToCstmrAcctRpt><Ntry/></BkToCstmrAcctRpt>", "no camt.053"),
        (b'<?xml version="1.0" encoding="gb2312"?><Document/>', "encoding is not known"),
        (b'<?xml version="1.0" encoding="no-such"?><Document/>', "encoding is not known"),
        (b'<?xml version="1.0" encoding="idna"?><Document/>', "encoding is not known"),
        (b'<?xml version="1.0" encoding="utf-16"?><Document/>', "Not well-formed"),
        (b"\x1f\x8b\x08\x00", "Not well-formed"),
        (b"", "no camt.053"),
    ],
)
def test_xml_that_is_no_statement_says_why(content: bytes, message: str) -> None:
    found, end = rows_of(CamtStatement([content], Terms(), zone_name="UTC"))
    assert found == []
    assert end is not None
    assert message in end.message


def camt(*entries: str, balances: str = "") -> Any:
    """Return what the entries of a statement become."""
    text = f"<Document><BkToCstmrStmt><Stmt>{balances}{''.join(entries)}</Stmt></BkToCstmrStmt></Document>"
    found, end = rows_of(CamtStatement([text.encode()], Terms(), zone_name="Asia/Shanghai"))
    assert end is None
    return found


def entry(further: str = "", *, amount: str = '<Amt Ccy="EUR">12.50</Amt>', status: str = "<Sts>BOOK</Sts>") -> str:
    return (
        f"<Ntry>{amount}<CdtDbtInd>CRDT</CdtDbtInd>{status}<BookgDt><Dt>2026-11-22</Dt></BookgDt>"
        f"<AcctSvcrRef>B</AcctSvcrRef>{further}</Ntry>"
    )


@pytest.mark.parametrize(
    ("charges", "fee"),
    [
        ("", 0),
        ('<Chrgs><Amt Ccy="EUR">0.10</Amt></Chrgs><Chrgs><Amt Ccy="EUR">0.20</Amt></Chrgs>', 30),
        ('<Chrgs><TtlChrgsAndTaxAmt Ccy="EUR">0.50</TtlChrgsAndTaxAmt><Amt Ccy="EUR">0.40</Amt></Chrgs>', 50),
        (
            '<Chrgs><Rcrd><Amt Ccy="EUR">0.30</Amt><CdtDbtInd>DBIT</CdtDbtInd></Rcrd>'
            '<Rcrd><Amt Ccy="EUR">0.10</Amt><CdtDbtInd>CRDT</CdtDbtInd></Rcrd></Chrgs>',
            20,
        ),
        (
            '<Chrgs><TtlChrgsAndTaxAmt Ccy="EUR">0.50</TtlChrgsAndTaxAmt>'
            '<Rcrd><Amt Ccy="EUR">0.40</Amt></Rcrd><Rcrd><Amt Ccy="EUR">0.10</Amt></Rcrd></Chrgs>',
            50,
        ),
    ],
)
def test_charges_of_camt_are_all_charges(charges: str, fee: int) -> None:
    transaction = "<NtryDtls><TxDtls><Refs><EndToEndId>O</EndToEndId></Refs>{0}</TxDtls></NtryDtls>"
    for found in camt(entry(charges)) + camt(entry(transaction.format(charges))):
        assert (found.amount, found.fee) == (1250, fee)


@pytest.mark.parametrize(
    ("charge", "said"),
    [
        ('<Amt Ccy="USD">0.10</Amt>', "The charges are in USD, the amount is in EUR."),
        ('<Amt Ccy="EUR">x</Amt>', 'An amount is a decimal string such as "-12.50".'),
        ('<Amt Ccy="EUR"></Amt>', 'An amount is a decimal string such as "-12.50".'),
        ('<Amt Ccy="EUR">0.001</Amt>', "EUR has 2 fraction digits."),
    ],
)
def test_charges_that_are_no_fee_of_this_amount_are_a_fault(charge: str, said: str) -> None:
    assert camt(entry(f"<Chrgs>{charge}</Chrgs>")) == [[Fault(1, "Chrgs", said)]]


@pytest.mark.parametrize(
    ("text", "column"),
    [
        (entry(amount='<Amt Ccy="EUR">-1</Amt>'), "Amt"),
        (entry(amount='<Amt Ccy="EUR">1,00</Amt>'), "Amt"),
        (entry(amount='<Amt Ccy="JPY">1.5</Amt>'), "Amt"),
        (entry(amount='<Amt Ccy="EUR">99999999999999999999</Amt>'), "Amt"),
        (entry(amount="<Amt>1</Amt>"), "Ccy"),
        (entry(status="<Sts>SOON</Sts>"), "Sts"),
        (entry().replace("2026-11-22", "2026-11-31"), "BookgDt"),
        # The number of an entry says nothing outside of its statement.
        (entry().replace("AcctSvcrRef", "NtryRef"), "AcctSvcrRef"),
    ],
)
def test_what_is_wrong_in_camt_is_named_by_its_element(text: str, column: str) -> None:
    assert [[(fault.line, fault.column) for fault in row] for row in camt(text)] == [[(1, column)]]


def test_of_a_transaction_that_was_exchanged_the_booked_amount_counts() -> None:
    instructed = '<AmtDtls><InstdAmt><Amt Ccy="USD">100</Amt></InstdAmt></AmtDtls>'
    [record] = camt(entry(f"<NtryDtls><TxDtls>{instructed}</TxDtls></NtryDtls>"))
    assert (record.amount, record.currency) == (1250, "EUR")


@pytest.mark.parametrize(
    ("day", "instant"),
    [
        ("<Dt>2026-11-22</Dt>", "2026-11-21T16:00:00+00:00"),
        ("<Dt>2026-11-22+01:00</Dt>", "2026-11-21T23:00:00+00:00"),
        ("<Dt>2026-11-22Z</Dt>", "2026-11-22T00:00:00+00:00"),
        ("<DtTm>2026-11-22T09:30:00.5</DtTm>", "2026-11-22T01:30:00.500000+00:00"),
        ("<DtTm>2026-11-22T09:30:00-03:30</DtTm>", "2026-11-22T13:00:00+00:00"),
    ],
)
def test_days_and_times_of_camt_may_have_offsets(day: str, instant: str) -> None:
    [record] = camt(entry().replace("<Dt>2026-11-22</Dt>", day))
    assert record.occurred_at.isoformat() == instant


def balance(code: str, amount: str, mark: str = "CRDT", currency: str = "EUR") -> str:
    return (
        f'<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp><Amt Ccy="{currency}">{amount}</Amt>'
        f"<CdtDbtInd>{mark}</CdtDbtInd><Dt><Dt>2026-11-22</Dt></Dt></Bal>"
    )


@pytest.mark.parametrize(
    ("balances", "is_told"),
    [
        (balance("OPBD", "1") + balance("CLBD", "11.50"), False),
        (balance("OPBD", "1") + balance("CLBD", "11.51"), True),
        (balance("PRCD", "11.50", "DBIT") + balance("CLBD", "1.00", "DBIT"), False),
        (balance("PRCD", "11.50", "DBIT") + balance("CLBD", "1.00"), True),
        # Whether these add up nobody can know.
        (balance("OPBD", "1"), False),
        (balance("CLBD", "1"), False),
        (balance("OPBD", "1") + balance("ITBD", "5") + balance("CLBD", "11.51"), False),
        (balance("OPBD", "1") + balance("CLBD", "9", currency="USD"), False),
        (balance("OPBD", "1") + balance("CLBD", "about 9"), False),
        ("<Bal/>" + balance("OPBD", "1").replace("Amt", "Amount") + balance("CLBD", "9"), False),
    ],
)
def test_balances_of_camt_have_to_add_up_where_they_are_told(balances: str, is_told: bool) -> None:
    paid = entry().replace("CRDT", "DBIT").replace("12.50", "2")
    pending = entry(status="<Sts><Cd>PDNG</Cd></Sts>")
    found = camt(entry(), paid, pending, balances=balances)
    assert len(found) == 3 + is_told
    if is_told:
        assert found[3][0].column == "Bal"
        assert found[3][0].message.startswith("The opening balance and the entries come to ")


def endless(*parts: str) -> Iterable[bytes]:
    """Return a statement in which one thing goes on for ever."""
    yield b"<Document><BkToCstmrStmt><Stmt>"
    for n in itertools.count():
        yield "".join(parts).replace("#", str(n)).encode()


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        (endless("<a>" * 100), "nested too deeply"),
        (endless("<a#/>" * 100), "names of elements"),
        (endless('<a b#=""/>'), "names of elements"),
        (itertools.chain([b'<Document><Ntry a="'], itertools.repeat(b"x" * 50_000)), "does not end"),
        (itertools.chain([b"<Document><!--"], itertools.repeat(b"x" * 50_000)), "does not end"),
        (itertools.chain([b"<BkToCstmrStmt><Ntry>"], itertools.repeat(b"<Amt/>" * 1000)), "too large"),
    ],
)
def test_nothing_in_xml_makes_the_parser_hold_more_and_more(pieces: Iterable[bytes], message: str) -> None:
    found, end = rows_of(CamtStatement(pieces, Terms(), zone_name="UTC"))
    assert found == []
    assert end is not None
    assert message in end.message


def test_of_an_endless_text_only_its_beginning_is_held() -> None:
    head = b"<BkToCstmrStmt><Ntry><AcctSvcrRef>"
    texts = itertools.repeat(b"x" * 50_000, 400)
    tracemalloc.start()
    found, _ = rows_of(CamtStatement(itertools.chain([head], texts), Terms(), zone_name="UTC"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == []
    assert peak < 2 * 1024 * 1024
