"""From a statement's file to records: into a table of rows first, and from there as one set.

A file that is certainly clean goes to the database as it is; every other one is read row by row.
See docs/decisions/0021-a-statement-is-copied-or-read.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol, cast

import psycopg
from sqlalchemy.orm import Session

from services.ledger.domain.statement_csv import CleanCsv, NotClean
from services.ledger.domain.statement_lines import COLUMNS, RecordLines
from services.ledger.domain.statements import Fault, Record, Terms, Unreadable
from shared.contracts.statements import FAULTS_KEPT_MAX
from shared.masking import mask_text

ROWS_AT_ONCE: Final = 500  # after so many the process's other work has its turn


class StatementFile(Protocol):
    """A file to import: its statement's row, its channel's terms, and what is in it, read anew each time."""

    row: Any
    terms: Terms
    tells_fees: bool  # once its rows have been read
    reference_name: str  # what the file calls the reference

    def chunks(self) -> Iterator[bytes]: ...

    def rows(self) -> Iterator[Record | list[Fault]]: ...

    def tell(self, rows: int, *, is_read: bool = False) -> None: ...


@dataclass
class Outcome:
    """What became of a file's rows so far."""

    rows: int = 0
    refused: int = 0
    new: int = 0
    changed: int = 0
    faults: list[Fault] = field(default_factory=list)
    first_occurred_at: datetime | None = None
    last_occurred_at: datetime | None = None

    def is_kept(self, *, is_partial: bool) -> bool:
        """Return whether anything of the file is kept."""
        return self.rows > self.refused and (is_partial or not self.refused)

    def refuse(self, *faults: Fault) -> None:
        """Count a row that is wrong, and keep its faults if they are among the first."""
        self.refused += 1
        room = max(FAULTS_KEPT_MAX - len(self.faults), 0)
        self.faults += [fault._replace(message=_told(fault.message)) for fault in faults[:room]]


def _told(message: str) -> str:
    """Return what is said of a fault as it may be kept: it quotes what people sent."""
    return mask_text("".join(sign if sign.isprintable() else "�" for sign in message))


def _cursor(session: Session) -> psycopg.Cursor[Any]:
    """Return the driver's cursor. To ask for it is what sets a savepoint that was begun."""
    return cast("psycopg.Cursor[Any]", session.connection().connection.cursor())


# Whatever the database says to a file that has the clean shape, reading it row by row says better.
_READ_IT: Final = (NotClean, psycopg.DataError, psycopg.IntegrityError, psycopg.errors.CardinalityViolation)


def copy_rows(session: Session, file: StatementFile) -> Outcome | None:
    """Import a file by copying it as it is. Returns: None for a file that has to be read."""
    try:
        with session.begin_nested():
            return _copy_as_new(session, file)
    except psycopg.errors.UniqueViolation:
        pass
    except _READ_IT:
        return None
    try:
        with session.begin_nested():
            return _copy_over(session, file)
    except _READ_IT:
        return None


def _copy_as_new(session: Session, file: StatementFile) -> Outcome:
    """Copy records straight to their place, which most of a day's are new in.

    Raises: psycopg.errors.UniqueViolation for a reference that is known, or stands in the file twice.
    """
    constants = {"channel": file.row.channel, "source": "statement", "statement_id": file.row.id}
    lines = RecordLines(CleanCsv(file.chunks(), file.terms), file.terms, constants=tuple(constants.values()))
    outcome = _copy(_cursor(session), "upstream_records", (*COLUMNS, *constants), lines, file)
    outcome.new = outcome.rows
    return outcome


def _copy_over(session: Session, file: StatementFile) -> Outcome:
    """Copy records beside those that are known, and merge both."""
    cursor = _cursor(session)
    cursor.execute(_CREATE_STAGED)
    clean = CleanCsv(file.chunks(), file.terms)
    outcome = _copy(cursor, "staged", COLUMNS, RecordLines(clean, file.terms), file)
    return _merge(cursor, file, outcome, has_fee="fee" in clean.header.places)


def _copy(
    cursor: psycopg.Cursor[Any], table: str, columns: tuple[str, ...], lines: RecordLines, file: StatementFile
) -> Outcome:
    query = f"copy {table} ({', '.join(columns)}) from stdin (null '')"
    with cursor.copy(query) as copy:
        for block in lines.blocks():
            copy.write(block)
            file.tell(lines.rows)
    if not lines.rows:
        raise NotClean
    return Outcome(rows=lines.rows, first_occurred_at=lines.first_occurred_at, last_occurred_at=lines.last_occurred_at)


_CREATE_STAGED: Final = """
create temporary table staged (line bigint, upstream_ref text, order_no text, amount bigint, fee bigint, currency text,
    status text, occurred_at timestamptz) on commit drop
"""


def read_rows(session: Session, file: StatementFile) -> Outcome:
    """Import a file by reading it row by row."""
    outcome = Outcome()
    cursor = _cursor(session)
    cursor.execute(_CREATE_STAGED)
    with cursor.copy(f"copy staged ({', '.join(Record._fields)}) from stdin") as copy:
        try:
            _stage_rows(copy, file, outcome)
        except Unreadable as error:
            outcome.rows += 1
            outcome.refuse(error.fault)
    _refuse_repeated(cursor, file, outcome)
    if not outcome.rows:
        outcome.refuse(Fault(1, None, "The file has no rows."))
    if not outcome.is_kept(is_partial=file.row.is_partial):
        return outcome
    times = cursor.execute("select min(occurred_at), max(occurred_at) from staged").fetchone()
    outcome.first_occurred_at, outcome.last_occurred_at = times or (None, None)
    return _merge(cursor, file, outcome, has_fee=file.tells_fees)


def _stage_rows(copy: psycopg.Copy, file: StatementFile, outcome: Outcome) -> None:
    """Stage the rows that are right; of a file that is refused anyway, only as many as its faults are shown for.

    Raises: Unreadable.
    """
    for row in file.rows():
        outcome.rows += 1
        if isinstance(row, list):
            outcome.refuse(*row)
        else:
            copy.write_row(row)
        if outcome.rows % ROWS_AT_ONCE == 0:
            file.tell(outcome.rows)
        if not file.row.is_partial and len(outcome.faults) >= FAULTS_KEPT_MAX:
            return


# Of rows with one reference the first is taken, and the others name it.
_REPEATED: Final = """
with numbered as (
    select ctid as place, line, row_number() over same as number, first_value(line) over same as first_line
      from staged window same as (partition by upstream_ref order by line, ctid)
), dropped as (
    delete from staged using numbered where staged.ctid = numbered.place and numbered.number > 1
    returning staged.line, numbered.first_line
)
select line, first_line, count(*) over () as dropped from dropped order by line limit %s
"""


def _refuse_repeated(cursor: psycopg.Cursor[Any], file: StatementFile, outcome: Outcome) -> None:
    """Refuse the rows whose reference stands before them already."""
    repeated = cursor.execute(_REPEATED, [FAULTS_KEPT_MAX]).fetchall()
    if repeated:
        outcome.refused += repeated[0][2]
        named = [
            Fault(line, file.reference_name, f"This reference stands on line {first} already.")
            for line, first, _ in repeated
        ]
        outcome.faults = sorted([*outcome.faults, *named], key=lambda fault: fault.line)[:FAULTS_KEPT_MAX]


def _merge(cursor: psycopg.Cursor[Any], file: StatementFile, outcome: Outcome, *, has_fee: bool) -> Outcome:
    """Write the staged records over what is known.

    has_fee: whether the file tells fees; one that does not leaves them as they are.
    Raises: psycopg.errors.UniqueViolation, CardinalityViolation for a reference that is staged twice.
    """
    file.tell(outcome.rows, is_read=True)
    cursor.execute("analyze staged")
    merging = _MERGE.format(fee="excluded.fee" if has_fee else "r.fee")
    outcome.new, outcome.changed = cursor.execute(merging, [file.row.channel, file.row.id]).fetchone() or (0, 0)
    # A row that says nothing new may be there twice without having been noticed.
    if outcome.new + outcome.changed < outcome.rows - outcome.refused and cursor.execute(_ANY_TWICE).fetchone():
        raise psycopg.errors.UniqueViolation
    return outcome


# A row goes over what is known unless it says nothing new, and never back in time: what came later, or at the same
# instant says that more has happened, is what the platform says now.
_RANK: Final = "array_position(array['pending', 'failed', 'success', 'refunded'], {}.status)"
_MERGE: Final = f"""
with written as (
    insert into upstream_records as r (channel, upstream_ref, order_no, amount, fee, currency, status, occurred_at,
        source, statement_id, line)
    select %s, upstream_ref, order_no, amount, fee, currency, status, occurred_at, 'statement', %s, line from staged
        on conflict (upstream_ref, channel) do update
       set order_no = coalesce(excluded.order_no, r.order_no), amount = excluded.amount, fee = {{fee}},
           currency = excluded.currency, status = excluded.status, occurred_at = excluded.occurred_at,
           source = excluded.source, statement_id = excluded.statement_id, line = excluded.line
     where (r.order_no, r.amount, r.fee, r.currency, r.status, r.occurred_at) is distinct from
           (coalesce(excluded.order_no, r.order_no), excluded.amount, {{fee}}, excluded.currency, excluded.status,
            excluded.occurred_at)
       and (excluded.occurred_at, {_RANK.format("excluded")}) >= (r.occurred_at, {_RANK.format("r")})
    returning r.xmax = 0 as is_new
)
select count(*) filter (where is_new), count(*) filter (where not is_new) from written
"""
_ANY_TWICE: Final = "select 1 from staged group by upstream_ref having count(*) > 1 limit 1"
