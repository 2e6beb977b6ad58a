"""From a statement's file to records: into a table of rows first, and from there as one set.

A file that is certainly clean goes to the database as it is; every other one is read row by row.
See docs/decisions/0021-a-statement-is-copied-or-read.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol, cast

import psycopg
from psycopg import sql
from sqlalchemy.orm import Session

from services.ledger.domain.statement_csv import CleanCsv, NotClean
from services.ledger.domain.statements import Fault, Record, Terms, Unreadable
from shared.contracts.statements import FAULTS_KEPT_MAX
from shared.masking import mask_text
from shared.money import currencies, fraction_digits

ROWS_AT_ONCE: Final = 500  # after so many the process's other work has its turn

# What came later, or at the same instant says that more has happened, is what the platform says now.
_RANK: Final = "array_position(array['pending', 'failed', 'success', 'refunded'], {}.status)"


class StatementFile(Protocol):
    """A file to import: its statement's row, its channel's terms, and what is in it, read anew each time."""

    row: Any
    terms: Terms

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
        clean = CleanCsv(file.chunks(), file.terms)
        with session.begin_nested():
            cursor = _cursor(session)
            rows = _copy(cursor, clean, file)
            if not rows:
                raise NotClean
            outcome = Outcome(rows=rows)
            _note_times(cursor, outcome, _clean_times(clean))
            source = _clean_source(clean, file.terms)
            return _write(session, file, source, outcome, has_fee="fee" in clean.header.places)
    except _READ_IT:
        return None


def _copy(cursor: psycopg.Cursor[Any], clean: CleanCsv, file: StatementFile) -> int:
    columns = [sql.Identifier(f"c{place}") for place in range(len(clean.header.names))]
    cursor.execute(
        sql.SQL(
            "create temporary table staged ({}, line bigint generated always as identity (start 2)) on commit drop"
        ).format(sql.SQL(", ").join(sql.SQL("{} text").format(column) for column in columns))
    )
    copying = sql.SQL("copy staged ({}) from stdin (format csv, delimiter {})").format(
        sql.SQL(", ").join(columns), sql.Literal(clean.header.delimiter)
    )
    rows = 0
    with cursor.copy(copying) as copy:
        for block in clean.blocks():
            copy.write(block)
            rows += block.count(b"\n")
            file.tell(rows)
    return rows


def _clean_source(clean: CleanCsv, terms: Terms) -> sql.Composed:
    """Return the query that makes records of rows that have the clean shape; what does not fit is null, or an error."""

    def column(name: str) -> sql.Composable:
        place = clean.header.places.get(name)
        return sql.SQL("null::text") if place is None else sql.Identifier(f"c{place}")

    def minor(name: str) -> sql.Composed:
        return sql.SQL(
            "case when scale({0}::numeric) <= d.digits then ({0}::numeric * d.minor_units)::bigint end"
        ).format(column(name))

    currency = column("currency") if "currency" in clean.header.places else sql.Literal(terms.currency)
    known = sql.SQL(", ").join(
        sql.SQL("({}, {}, {}::numeric)").format(code, fraction_digits(code), 10 ** fraction_digits(code))
        for code in currencies()
    )
    words = sql.SQL(" ").join(
        sql.SQL("when {} then {}").format(word, status) for word, status in clean.statuses.items()
    )
    return sql.SQL(
        "select line, {upstream_ref} as upstream_ref, {order_no} as order_no, {amount} as amount,"
        " case when {fee_text} is null then 0 else {fee} end as fee, d.currency,"
        " case lower({status}) {words} end as status,"
        " ({time} || {suffix})::timestamptz as occurred_at"
        " from staged left join (values {known}) as d (currency, digits, minor_units) on d.currency = {currency}"
    ).format(
        upstream_ref=column("upstream_ref"),
        order_no=column("order_no"),
        amount=minor("amount"),
        fee_text=column("fee"),
        fee=minor("fee"),
        currency=currency,
        status=column("status"),
        words=words,
        time=column("time"),
        suffix=sql.Literal(clean.time_suffix),
        known=known,
    )


def _clean_times(clean: CleanCsv) -> sql.Composed:
    """Return the query for the first and the last time of rows that have the clean shape."""
    column, suffix = sql.Identifier(f"c{clean.header.places['time']}"), sql.Literal(clean.time_suffix)
    # To compare texts takes a fifth of the time that it takes to read them.
    form = (
        '(min({0} collate "C") || {1})::timestamptz' if clean.has_comparable_times else "min(({0} || {1})::timestamptz)"
    )
    first = sql.SQL(form).format(column, suffix)
    last = sql.SQL(form.replace("min(", "max(")).format(column, suffix)
    return sql.SQL("select {}, {} from staged").format(first, last)


_STAGED_COLUMNS: Final = "line, upstream_ref, order_no, amount, fee, currency, status, occurred_at"
_CREATE_STAGED: Final = """
create temporary table staged (line bigint, upstream_ref text, order_no text, amount bigint, fee bigint, currency text,
    status text, occurred_at timestamptz) on commit drop
"""


def read_rows(session: Session, file: StatementFile) -> Outcome:
    """Import a file by reading it row by row."""
    outcome = Outcome()
    cursor = _cursor(session)
    cursor.execute(_CREATE_STAGED)
    with cursor.copy(f"copy staged ({_STAGED_COLUMNS}) from stdin") as copy:
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
    source = sql.SQL("select {} from staged").format(sql.SQL(_STAGED_COLUMNS))
    _note_times(cursor, outcome, sql.SQL("select min(occurred_at), max(occurred_at) from staged"))
    return _write(session, file, source, outcome, has_fee=True)


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
    column = file.terms.columns["upstream_ref"]
    repeated = cursor.execute(_REPEATED, [FAULTS_KEPT_MAX]).fetchall()
    if repeated:
        outcome.refused += repeated[0][2]
        named = [Fault(line, column, f"This reference stands on line {first} already.") for line, first, _ in repeated]
        outcome.faults = sorted([*outcome.faults, *named], key=lambda fault: fault.line)[:FAULTS_KEPT_MAX]


def _note_times(cursor: psycopg.Cursor[Any], outcome: Outcome, query: sql.SQL | sql.Composed) -> None:
    outcome.first_occurred_at, outcome.last_occurred_at = cursor.execute(query).fetchone() or (None, None)


def _write(
    session: Session,
    file: StatementFile,
    source: sql.Composed,
    outcome: Outcome,
    *,
    has_fee: bool,
) -> Outcome:
    """Write records: first as if all of them were new, which most days are, else one by one over what is there.

    Raises: psycopg.IntegrityError, for a reference that stands in the file twice.
    """
    file.tell(outcome.rows, is_read=True)
    adding = sql.SQL(
        "insert into upstream_records as r"
        " (channel, upstream_ref, order_no, amount, fee, currency, status, occurred_at, source, statement_id, line)"
        " select {channel}, upstream_ref, order_no, amount, fee, currency, status, occurred_at, 'statement', {id}, line"
        " from ({source}) as s"
    ).format(channel=file.row.channel, id=file.row.id, source=source)
    try:
        with session.begin_nested():
            outcome.new = _cursor(session).execute(adding).rowcount
            return outcome
    except psycopg.errors.UniqueViolation:
        pass
    merging = sql.SQL("with written as ({} {} returning r.xmax = 0 as is_new) {}").format(
        adding,
        sql.SQL(_merge(has_fee=has_fee)),
        sql.SQL("select count(*) filter (where is_new), count(*) filter (where not is_new) from written"),
    )
    cursor = _cursor(session)
    outcome.new, outcome.changed = cursor.execute(merging).fetchone() or (0, 0)
    if outcome.new + outcome.changed < outcome.rows - outcome.refused:
        # A row that says nothing new may stand in the file twice without having been noticed.
        repeated = sql.SQL("select 1 from ({}) as s group by upstream_ref having count(*) > 1 limit 1").format(source)
        if cursor.execute(repeated).fetchone():
            raise psycopg.errors.UniqueViolation
    return outcome


def _merge(*, has_fee: bool) -> str:
    """Return how a row goes over what is known: unless it says nothing new, and never back in time.

    has_fee: whether the file tells fees; one that does not leaves them as they are.
    """
    fee = "excluded.fee" if has_fee else "r.fee"
    order_no = "coalesce(excluded.order_no, r.order_no)"
    return f"""
        on conflict (upstream_ref, channel) do update
       set order_no = {order_no}, amount = excluded.amount, fee = {fee}, currency = excluded.currency,
           status = excluded.status, occurred_at = excluded.occurred_at, source = excluded.source,
           statement_id = excluded.statement_id, line = excluded.line
     where (r.order_no, r.amount, r.fee, r.currency, r.status, r.occurred_at) is distinct from
           ({order_no}, excluded.amount, {fee}, excluded.currency, excluded.status, excluded.occurred_at)
       and (excluded.occurred_at, {_RANK.format("excluded")}) >= (r.occurred_at, {_RANK.format("r")})"""
