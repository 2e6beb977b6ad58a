"""The import of a statement: its file into a table of rows, and those into the records, all in one transaction.

A file that is certainly clean goes to the database as it is; every other one is read row by row. Either way the
records are written as sets. Whatever stops it, nothing of the file is kept, and another process begins it anew.
See docs/decisions/0021-a-statement-is-copied-or-read.md.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final, Protocol, cast

import psycopg
import sqlalchemy as sa
import structlog
from psycopg import sql
from sqlalchemy.orm import Session

from services.ledger.domain.statement_camt import CamtStatement
from services.ledger.domain.statement_csv import CleanCsv, CsvStatement, NotClean
from services.ledger.domain.statement_mt940 import Mt940Statement
from services.ledger.domain.statements import Fault, Record, Terms, Unreadable
from services.ledger.models.channels import channels
from services.ledger.models.statements import statement_chunks, statement_view, statements
from services.ledger.usecases.statements import unpacked
from shared import outbox
from shared.contracts.statements import FAULTS_KEPT_MAX, StatementImported, StatementRefused, StatementView
from shared.masking import mask_text
from shared.money import currencies, fraction_digits
from shared.passport import Passport
from shared.rpc.wire import Call, current_call

log = structlog.get_logger(__name__)

ATTEMPTS_MAX: Final = 5
STATEMENT_SECONDS_MAX: Final = 1800
WORK_MEM: Final = "64MB"
PROGRESS_SECONDS: Final = 0.5
ROWS_AT_ONCE: Final = 500  # after so many the process's other work has its turn
PERCENT_READ: Final = 50
SERVICE: Final = "ledger"

# What came later, or at the same instant says that more has happened, is what the platform says now.
_RANK: Final = "array_position(array['pending', 'failed', 'success', 'refunded'], {}.status)"


class Books(Protocol):
    """What an import needs of its process."""

    def run(self, work: Callable[[Session], Any]) -> Any: ...


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


def import_next_statement(books: Books, *, zone_name: str) -> StatementView | None:
    """Import the statement that has waited longest, if one waits that nobody is importing."""
    query = sa.select(statements.c.id).where(statements.c.status == "importing").order_by(statements.c.created_at)
    for statement_id in books.run(lambda session: session.scalars(query).all()):
        view = import_statement(books, statement_id=statement_id, zone_name=zone_name)
        if view is not None:
            return view
    return None


def import_statement(books: Books, *, statement_id: str, zone_name: str) -> StatementView | None:
    """Import a statement whose file has come in whole, or refuse it. It may be called again and again.

    Returns: the statement; None where another process is importing it, or it is done.
    Emits: StatementImported, StatementRefused.
    Locks: the statement and its channel, for other imports only.
    """
    return cast(
        "StatementView | None",
        books.run(lambda session: _import(session, books, statement_id=statement_id, zone_name=zone_name)),
    )


def _import(session: Session, books: Books, *, statement_id: str, zone_name: str) -> StatementView | None:
    row = session.execute(sa.select(statements).where(statements.c.id == statement_id)).first()
    if row is None or not _is_ours(session, row):
        return None
    token = current_call.set(_call_of(row))
    try:
        if books.run(lambda session: _count_attempt(session, statement_id)) > ATTEMPTS_MAX:
            log.error("a statement cannot be imported", statement_id=statement_id)
            return _give_up(session, row)
        channel = session.execute(sa.select(channels).where(channels.c.code == row.channel)).one()
        file = _File(books, row, Terms.of_config(channel.config, zone_name=zone_name), zone_name)
        _allow_time(session)
        outcome = (_import_clean(session, file) if row.format == "csv" else None) or _import_read(session, file)
        return _finish(session, row, outcome)
    finally:
        current_call.reset(token)


# Two imports of a channel would wait for each other's records in either order, so there is one at a time.
_LOCK: Final = sa.text("select pg_try_advisory_xact_lock(hashtextextended('statements of ' || :channel, 0))")


def _is_ours(session: Session, row: Any) -> bool:
    """Return whether a statement waits, and nobody else is importing one of its channel."""
    if not session.scalar(_LOCK, {"channel": row.channel}):
        return False
    # Read after the lock is ours: whoever had it may have just finished this one.
    status = session.scalar(sa.select(statements.c.status).where(statements.c.id == row.id))
    return bool(status == "importing")


def _count_attempt(session: Session, statement_id: str) -> int:
    """Count this attempt: a file that kills whoever imports it must not do so for ever."""
    counting = (
        sa.update(statements)
        .where(statements.c.id == statement_id)
        .values(attempts=statements.c.attempts + 1, percent_done=0, rows_done=0)
        .returning(statements.c.attempts)
    )
    return int(session.execute(counting).scalar_one())


def _call_of(row: Any) -> Call:
    """Return the call on whose behalf a statement is imported: whoever sent it is who did it."""
    passport = Passport(
        actor_id=row.actor_id,
        actor_name=row.actor_name,
        actor_type=row.actor_type,
        permissions={},
        request_id=row.request_id,
    )
    return Call(service=SERVICE, method="import_statement", passport=passport, arguments={})


def _allow_time(session: Session) -> None:
    settings = {
        "statement_timeout": f"{STATEMENT_SECONDS_MAX}s",
        "idle_in_transaction_session_timeout": f"{STATEMENT_SECONDS_MAX}s",
        "work_mem": WORK_MEM,
    }
    for setting, value in settings.items():
        session.execute(sa.text(f"set local {setting} = '{value}'"))


class _File:
    """The file of a statement, read anew by each `chunks()`; whoever reads it tells how far it has come."""

    def __init__(self, books: Books, row: Any, terms: Terms, zone_name: str) -> None:
        self._books = books
        self.row = row
        self.terms = terms
        self._zone_name = zone_name
        self._percent = 0
        self._told_at = 0.0

    def chunks(self) -> Iterator[bytes]:
        """Return the file's pieces, each read in a transaction of its own."""
        for seq in range(self.row.chunks):
            yield unpacked(self._books.run(partial(self._content, seq=seq)))
            self._percent = (seq + 1) * PERCENT_READ // self.row.chunks

    def rows(self) -> Iterator[Record | list[Fault]]:
        """Return each row's record or faults. Raises: Unreadable."""
        if self.row.format == "csv":
            return CsvStatement(self.chunks(), self.terms).rows()
        if self.row.format == "mt940":
            return Mt940Statement(self.chunks(), self.terms, zone_name=self._zone_name).rows()
        return CamtStatement(self.chunks(), self.terms, zone_name=self._zone_name).rows()

    def tell(self, rows: int, *, is_read: bool = False) -> None:
        """Tell how many rows have been read, for others to see, unless that was told a moment ago."""
        time.sleep(0)
        self._percent = PERCENT_READ if is_read else self._percent
        if is_read or time.monotonic() - self._told_at > PROGRESS_SECONDS:
            self._told_at = time.monotonic()
            self._books.run(lambda session: self._tell(session, rows))

    def _content(self, session: Session, *, seq: int) -> bytes:
        c = statement_chunks.c
        query = sa.select(c.content).where(c.statement_id == self.row.id, c.seq == seq)
        return bytes(session.execute(query).scalar_one())

    def _tell(self, session: Session, rows: int) -> None:
        telling = sa.update(statements).where(statements.c.id == self.row.id)
        session.execute(telling.values(rows_done=rows, percent_done=self._percent))


def _cursor(session: Session) -> psycopg.Cursor[Any]:
    """Return the driver's cursor. To ask for it is what sets a savepoint that was begun."""
    return cast("psycopg.Cursor[Any]", session.connection().connection.cursor())


# Whatever the database says to a file that has the clean shape, reading it row by row says better.
_READ_IT: Final = (NotClean, psycopg.DataError, psycopg.IntegrityError, psycopg.errors.CardinalityViolation)


def _import_clean(session: Session, file: _File) -> Outcome | None:
    """Import a file by copying it as it is. Returns: None for a file that has to be read."""
    try:
        clean = CleanCsv(file.chunks(), file.terms)
        with session.begin_nested():
            cursor = _cursor(session)
            rows = _copy(cursor, clean, file)
            if not rows:
                raise NotClean
            source = _clean_source(clean, file.terms)
            return _write(session, cursor, file, source, Outcome(rows=rows), has_fee="fee" in clean.header.places)
    except _READ_IT:
        return None


def _copy(cursor: psycopg.Cursor[Any], clean: CleanCsv, file: _File) -> int:
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


_STAGED_COLUMNS: Final = "line, upstream_ref, order_no, amount, fee, currency, status, occurred_at"
_CREATE_STAGED: Final = """
create temporary table staged (line bigint, upstream_ref text, order_no text, amount bigint, fee bigint, currency text,
    status text, occurred_at timestamptz) on commit drop
"""


def _import_read(session: Session, file: _File) -> Outcome:
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
    return _write(session, cursor, file, source, outcome, has_fee=True)


def _stage_rows(copy: psycopg.Copy, file: _File, outcome: Outcome) -> None:
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


def _refuse_repeated(cursor: psycopg.Cursor[Any], file: _File, outcome: Outcome) -> None:
    """Refuse the rows whose reference stands before them already."""
    column = file.terms.columns["upstream_ref"]
    repeated = cursor.execute(_REPEATED, [FAULTS_KEPT_MAX]).fetchall()
    if repeated:
        outcome.refused += repeated[0][2]
        named = [Fault(line, column, f"This reference stands on line {first} already.") for line, first, _ in repeated]
        outcome.faults = sorted([*outcome.faults, *named], key=lambda fault: fault.line)[:FAULTS_KEPT_MAX]


def _write(
    session: Session,
    cursor: psycopg.Cursor[Any],
    file: _File,
    source: sql.Composed,
    outcome: Outcome,
    *,
    has_fee: bool,
) -> Outcome:
    """Write records: first as if all of them were new, which most days are, else one by one over what is there.

    Raises: psycopg.IntegrityError, for a reference that stands in the file twice.
    """
    file.tell(outcome.rows, is_read=True)
    query = sql.SQL("select min(occurred_at), max(occurred_at) from ({}) as s").format(source)
    first, last = cursor.execute(query).fetchone() or (None, None)
    outcome.first_occurred_at, outcome.last_occurred_at = first, last
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


def _give_up(session: Session, row: Any) -> StatementView:
    outcome = Outcome()
    outcome.refuse(Fault(1, None, "The import failed again and again; tell us the statement's id."))
    return _finish(session, row, outcome)


def _finish(session: Session, row: Any, outcome: Outcome) -> StatementView:
    """Write what became of a statement, tell of it, and let go of its file."""
    is_imported = outcome.is_kept(is_partial=row.is_partial)
    values = {
        "status": "imported" if is_imported else "refused",
        "percent_done": 100,
        "rows_done": outcome.rows,
        "rows_new": outcome.new,
        "rows_changed": outcome.changed,
        "rows_refused": outcome.refused,
        "faults": [fault._asdict() for fault in outcome.faults],
        "first_occurred_at": outcome.first_occurred_at,
        "last_occurred_at": outcome.last_occurred_at,
        "finished_at": sa.func.clock_timestamp(),
    }
    done = session.execute(sa.update(statements).where(statements.c.id == row.id).values(values).returning(statements))
    session.execute(sa.delete(statement_chunks).where(statement_chunks.c.statement_id == row.id))
    view = statement_view(done.one())
    told: dict[str, Any] = {
        "statement_id": row.id,
        "channel": row.channel,
        "format": row.format,
        "filename": row.filename,
        "sha256": view["sha256"],
        "rows_refused": outcome.refused,
    }
    if is_imported:
        outbox.add(
            session,
            StatementImported(
                **told,
                rows_done=outcome.rows,
                rows_new=outcome.new,
                rows_changed=outcome.changed,
                first_occurred_at=view["first_occurred_at"],
                last_occurred_at=view["last_occurred_at"],
            ),
        )
    else:
        fault = outcome.faults[0]
        outbox.add(session, StatementRefused(**told, fault=f"line {fault.line}: {fault.message}"))
    return view
