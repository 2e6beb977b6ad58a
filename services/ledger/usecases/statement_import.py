"""The import of a statement as a job: one transaction, which any process may begin anew when another died of it.

See docs/decisions/0021-a-statement-is-copied-or-read.md.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, Protocol, cast

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from services.ledger.domain.statement_camt import CamtStatement
from services.ledger.domain.statement_csv import CsvStatement
from services.ledger.domain.statement_mt940 import Mt940Statement
from services.ledger.domain.statements import Fault, Record, Terms
from services.ledger.models.channels import channels
from services.ledger.models.statements import statement_chunks, statement_view, statements
from services.ledger.usecases.statement_rows import Outcome, copy_rows, read_rows
from services.ledger.usecases.statements import unpacked
from shared import outbox
from shared.contracts.statements import StatementImported, StatementRefused, StatementView
from shared.passport import Passport
from shared.rpc.wire import Call, current_call

log = structlog.get_logger(__name__)

ATTEMPTS_MAX: Final = 8
STATEMENT_SECONDS_MAX: Final = 1800
WORK_MEM: Final = "64MB"
PROGRESS_SECONDS: Final = 0.5
PERCENT_READ: Final = 90
PIECE_BYTES: Final = 256 * 1024  # takes 10 ms; then the process's other work has its turn
SERVICE: Final = "ledger"


class Books(Protocol):
    """What an import needs of its process."""

    def run(self, work: Callable[[Session], Any]) -> Any: ...


def import_next_statement(books: Books, *, zone_name: str) -> StatementView | None:
    """Import the statement that has waited longest, if one waits that nobody is importing."""
    c = statements.c
    # Whatever stopped an import may take a while to pass: after the first time a second, then four, nine …
    paused = sa.func.make_interval(0, 0, 0, 0, 0, 0, c.attempts * c.attempts)
    is_due = sa.func.coalesce(c.attempted_at + paused < sa.func.clock_timestamp(), sa.true())
    query = sa.select(c.id).where(c.status == "importing", is_due).order_by(c.created_at)
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
        outcome = (copy_rows(session, file) if row.format == "csv" else None) or read_rows(session, file)
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
        .values(
            attempts=statements.c.attempts + 1,
            attempted_at=sa.func.clock_timestamp(),
            percent_done=0,
            rows_done=0,
        )
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
        self.tells_fees = True
        self._zone_name = zone_name
        self._percent = 0
        self._told_at = 0.0

    def chunks(self) -> Iterator[bytes]:
        """Return the file in small pieces; what was sent together is read in a transaction of its own."""
        for seq in range(self.row.chunks):
            data = unpacked(self._books.run(partial(self._content, seq=seq)))
            for start in range(0, len(data), PIECE_BYTES):
                yield data[start : start + PIECE_BYTES]
            self._percent = (seq + 1) * PERCENT_READ // self.row.chunks

    def rows(self) -> Iterator[Record | list[Fault]]:
        """Return each row's record or faults. Raises: Unreadable."""
        reader = self._reader()
        try:
            yield from reader.rows()
        finally:
            self.tells_fees = reader.tells_fees

    def _reader(self) -> CsvStatement | Mt940Statement | CamtStatement:
        if self.row.format == "csv":
            return CsvStatement(self.chunks(), self.terms)
        if self.row.format == "mt940":
            return Mt940Statement(self.chunks(), self.terms, zone_name=self._zone_name)
        return CamtStatement(self.chunks(), self.terms, zone_name=self._zone_name)

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
