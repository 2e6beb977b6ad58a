"""For whatever bytes come: parsers end, with records or faults; and what is copied as it is means what it says."""

import contextlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.ledger.domain.statement_camt import CamtStatement
from services.ledger.domain.statement_csv import CsvStatement
from services.ledger.domain.statement_mt940 import Mt940Statement
from services.ledger.domain.statements import Fault, Record, Terms, Unreadable
from services.ledger.usecases.statement_rows import copy_rows, read_rows
from tests.services.ledger.test_statements_domain import CAMT, HEADER, MT940, ROW

STAGED = "select upstream_ref, order_no, amount, fee, currency, status, occurred_at, line from upstream_records"


def ends_well(statement: Any) -> None:
    """Check that a file ends, in whatever way a file may."""
    with contextlib.suppress(Unreadable):
        for row in statement.rows():
            assert isinstance(row, Record) or (row and all(isinstance(fault, Fault) for fault in row))


SIGNS = (b'"', b"\r\n", b":61:", b"<Ntry>", b"\0", b",")


@st.composite
def spoiled(draw: st.DrawFn, *seeds: bytes) -> list[bytes]:
    """Return the pieces of a file that was good, until some of its bytes were lost, doubled or put differently."""
    content = bytearray(draw(st.sampled_from(seeds)) * draw(st.integers(1, 3)))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(content)))
        end = min(start + draw(st.integers(0, 8)), len(content))
        content[start:end] = draw(
            st.binary(max_size=6) | st.sampled_from([b'"', b"\r\n", b":61:", b"<Ntry>", b"\0", b","])
        )
    cuts = sorted(draw(st.lists(st.integers(0, len(content)), max_size=3)))
    edges = [0, *cuts, len(content)]
    return [bytes(content[start:end]) for start, end in pairwise(edges)]


@given(spoiled(HEADER + ROW, ROW, b"\xef\xbb\xbf" + HEADER + ROW.replace(b"u1", b'"u1"')))
def test_any_csv_ends(pieces: list[bytes]) -> None:
    ends_well(CsvStatement(pieces, Terms()))


@given(spoiled(MT940.encode()))
@example([b":60F:\n:61:", b"\n:61:2611221122C12,50NTRF//\n:86:" + b"?" * 5000])
def test_any_mt940_ends(pieces: list[bytes]) -> None:
    ends_well(Mt940Statement(pieces, Terms(), zone_name="UTC"))


@given(spoiled(CAMT.encode()))
def test_any_camt_ends(pieces: list[bytes]) -> None:
    ends_well(CamtStatement(pieces, Terms(), zone_name="UTC"))


class File:
    """A statement's file in memory."""

    tells_fees = True
    reference_name = "upstream_ref"

    def __init__(self, content: bytes, terms: Terms) -> None:
        self.row = sa.Row  # type: ignore[assignment]
        self.content = content
        self.terms = terms

    def chunks(self) -> Iterator[bytes]:
        yield self.content

    def rows(self) -> Iterator[Any]:
        return CsvStatement(self.chunks(), self.terms).rows()

    def tell(self, rows: int, *, is_read: bool = False) -> None:
        """Tell nobody."""


CLOCK = r"20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\.[0-9]{1,7})?"
ZONES = ("Z", "+08:00", "-14:59", "+15:00", "", "z")
CELLS = {
    "upstream_ref": st.sampled_from(["u1", "u2", "u3", "u4", "!~", "a" * 128, "a" * 129, "", "x y", "\\."]),
    "order_no": st.sampled_from(["O-1", "", "x" * 64, "x" * 65, "号", "null", "\\N"]),
    "amount": st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,4})?", fullmatch=True)
    | st.sampled_from(["", "0", "00", ".5", "5.", "1e3", "NaN", "-0", "-1", "999999999999999", "9223372036854775807"]),
    "fee": st.sampled_from(["", "0", "-0.10", "0.10", "1.234", "x"]),
    "currency": st.sampled_from(["CNY", "JPY", "USDT", "KWD", "XXQ", "cny", ""]),
    "status": st.sampled_from(["success", "SUCCESS", "refunded", "paid", "Paid", "unknown", ""]),
    "time": st.tuples(st.from_regex(CLOCK, fullmatch=True), st.sampled_from(ZONES)).map("".join)
    | st.sampled_from(["2026-02-29T00:00:00Z", "2028-02-29T00:00:00Z", "now", "infinity", "2026-11-22"]),
}  # fmt: skip
GOOD = {
    "upstream_ref": st.from_regex(r"[!#-+\--~]{1,20}", fullmatch=True),
    "order_no": st.sampled_from(["O-1", "", "O-2"]),
    "amount": st.from_regex(r"(0|[1-9][0-9]{0,8})(\.[0-9]{1,2})?", fullmatch=True),
    "fee": st.sampled_from(["", "0", "-0.10", "0.10"]),
    "currency": st.sampled_from(["CNY", "USDT"]),
    "status": st.sampled_from(["success", "SUCCESS", "paid"]),
    "time": st.datetimes().map(lambda at: f"{at.replace(year=2000 + at.year % 100, day=min(at.day, 28)).isoformat()}Z"),
}
TERMS = Terms.of_config({"statuses": {"Paid": "success"}}, zone_name="UTC")


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Return a file of rows that are mostly good."""
    bad = draw(st.sampled_from([(), ("amount",), ("time",), ("upstream_ref",), tuple(CELLS)]))
    quote = draw(st.sampled_from(["", "", '"']))
    cells = st.tuples(*(CELLS[name] if name in bad else GOOD[name] for name in CELLS))
    row = cells.map(lambda row: ",".join(f"{quote}{cell}{quote}" for cell in row))
    rows = draw(st.lists(row, min_size=1, max_size=4))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    return (",".join(CELLS) + end + end.join(rows) + end).encode()


@pytest.fixture(scope="module")
def engine(engine_of: Any) -> sa.Engine:
    """An engine on a ledger that nothing is committed to."""
    found: sa.Engine = engine_of("ledger")
    return found


def imported(engine: sa.Engine, content: bytes, how: Any) -> Any:
    """Return the records that a file becomes in one of the two ways; None where that way does not take it."""
    file = File(content, TERMS)
    file.row = type("Row", (), {"id": "sta_1", "channel": "c", "is_partial": False})
    with engine.connect() as connection, sa.orm.Session(connection) as session:
        outcome = how(session, file)
        is_kept = outcome is not None and outcome.is_kept(is_partial=False)
        found = session.execute(sa.text(STAGED + " order by line")).all() if is_kept else None
        session.rollback()
        return found and (found, outcome.first_occurred_at, outcome.last_occurred_at)


@settings(max_examples=150, deadline=None)
@given(files())
def test_what_is_copied_as_it_is_becomes_what_it_becomes_when_it_is_read(engine: sa.Engine, content: bytes) -> None:
    copied = imported(engine, content, copy_rows)
    if copied is not None:
        assert copied == imported(engine, content, read_rows)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*GOOD.values()), min_size=1, max_size=5, unique_by=lambda row: row[0]))
def test_a_good_file_is_copied(engine: sa.Engine, rows: list[tuple[str, ...]]) -> None:
    content = HEADER + "".join(",".join(row) + "\n" for row in rows).encode()
    copied = imported(engine, content, copy_rows)
    assert copied is not None
    assert copied == imported(engine, content, read_rows)
