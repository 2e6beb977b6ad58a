"""The import of a statement as a job: one transaction, which any process may begin anew when another died of it.

A large file's import begins while the file still comes in, and ends once it is known to be whole.
See docs/decisions/0021-a-statement-is-copied-or-read.md.
"""

import itertools
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
PIECE_BYTES: Final = 64 * 1024  # takes 3 ms; PostgreSQL takes it while the next is made, and other work has its turn
EARLY_PIECE: Final = 2  # the third piece: a file that has one is too large to be imported at once
EARLY_PIECES_A_SECOND: Final = 16  # what an import takes: to begin on what comes slower would be for nothing
EARLY_WAIT_SECONDS_MAX: Final = 2.0  # in all: whoever hears of the same payments from elsewhere waits as long
PIECE_PAUSE_SECONDS: Final = 0.01
SERVICE: Final = "ledger"


class StillComing(Exception):
    """This file is to be imported when it has come in whole."""


class Books(Protocol):
    """What an import needs of its process."""

    def run(self, work: Callable[[Session], Any]) -> Any: ...


def import_next_statement(books: Books, *, zone_name: str) -> StatementView | None:
    """Import the statement that has waited longest, if one waits that nobody is importing; else one that comes in."""
    c = statements.c
    # Whatever stopped an import may take a while to pass: after the first time a second, then four, nine …
    paused = sa.func.make_interval(0, 0, 0, 0, 0, 0, c.attempts * c.attempts)
    is_due = sa.func.coalesce(c.attempted_at + paused < sa.func.clock_timestamp(), sa.true())
    seconds = sa.extract("epoch", sa.func.clock_timestamp() - c.created_at)
    pieces = sa.func.greatest(EARLY_PIECE, seconds * EARLY_PIECES_A_SECOND)
    comes = sa.exists().where(statement_chunks.c.statement_id == c.id, statement_chunks.c.seq >= pieces)
    is_early = sa.and_(c.status == "receiving", c.format == "csv", c.attempts == 0, comes)
    query = sa.select(c.id).where(sa.or_(sa.and_(c.status == "importing", is_due), is_early))
    query = query.order_by(c.status, c.created_at)
    for statement_id in books.run(lambda session: session.scalars(query).all()):
        view = import_statement(books, statement_id=statement_id, zone_name=zone_name)
        if view is not None:
            return view
    return None


def import_statement(books: Books, *, statement_id: str, zone_name: str) -> StatementView | None:
    """Import a statement, or refuse it. It may be called again and again.

    One that still comes in is imported as it comes, if it comes quickly and each row is plainly right. Nothing is
    written before it has come in whole.

    Returns: the statement; None where another process is importing it, it is done, or it has to come in first.
    Emits: StatementImported, StatementRefused.
    Locks: the statement and its channel, for other imports only.
    """
    try:
        return cast(
            "StatementView | None",
            books.run(lambda session: _import(session, books, statement_id=statement_id, zone_name=zone_name)),
        )
    except StillComing:
        return None


def _import(session: Session, books: Books, *, statement_id: str, zone_name: str) -> StatementView | None:
    row = _own(session, statement_id)
    if row is None:
        return None
    token = current_call.set(_call_of(row))
    try:
        if books.run(lambda session: _count_attempt(session, statement_id)) > ATTEMPTS_MAX:
            log.error("a statement cannot be imported", statement_id=statement_id)
            return _give_up(session, row)
        channel = session.execute(sa.select(channels).where(channels.c.code == row.channel)).one()
        file = _File(books, row, Terms.of_config(channel.config, zone_name=zone_name), zone_name)
        _allow_time(session)
        outcome = copy_rows(session, file) if row.format == "csv" else None
        if not file.is_whole:
            raise StillComing
        return _finish(session, row, outcome or read_rows(session, file))
    finally:
        current_call.reset(token)


# Two imports of a channel would wait for each other's records in either order, so there is one at a time.
_LOCK: Final = sa.text("select pg_try_advisory_xact_lock(hashtextextended('statements of ' || :channel, 0))")


def _own(session: Session, statement_id: str) -> Any:
    """Return a statement's row if it waits, or comes in, and nobody else is importing one of its channel; else None."""
    query = sa.select(statements).where(statements.c.id == statement_id)
    row = session.execute(query).first()
    if row is None or not session.scalar(_LOCK, {"channel": row.channel}):
        return None
    # Read after the lock is ours: whoever had it may have just finished this one.
    row = session.execute(query).one()
    return row if row.status == "importing" or (row.status == "receiving" and not row.attempts) else None


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
        self.reference_name = terms.columns["upstream_ref"]
        self._chunks: int | None = row.chunks
        self._patience = EARLY_WAIT_SECONDS_MAX
        self._zone_name = zone_name
        self._percent = 0
        self._told_at = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether the file is known to have come in whole."""
        return self._chunks is not None

    def chunks(self) -> Iterator[bytes]:
        """Return the file in small pieces; what was sent together is read in a transaction of its own.

        Raises: StillComing for one that comes too slowly, or no more.
        """
        for seq in itertools.count():
            content = self._content_once_there(seq)
            if content is None:
                return
            data = unpacked(content)
            for start in range(0, len(data), PIECE_BYTES):
                yield data[start : start + PIECE_BYTES]
            if self._chunks is not None:
                self._percent = (seq + 1) * PERCENT_READ // self._chunks

    def _content_once_there(self, seq: int) -> bytes | None:
        """Return what was sent as one; None after the end of the file. Raises: StillComing."""
        while seq != self._chunks:
            found = self._books.run(partial(self._look, seq=seq))
            if found.status == "importing":
                self._chunks = found.chunks
            if found.content is not None:
                return bytes(found.content)
            if seq != self._chunks:
                self._wait(found.status)
        return None

    def _wait(self, status: str) -> None:
        """Wait for a moment. Raises: StillComing."""
        if status != "receiving" or self._patience <= 0:
            raise StillComing
        started = time.monotonic()
        time.sleep(PIECE_PAUSE_SECONDS)
        self._patience -= time.monotonic() - started

    def rows(self) -> Iterator[Record | list[Fault]]:
        """Return each row's record or faults. Raises: Unreadable."""
        reader = self._reader()
        self.reference_name = reader.reference_name
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

    def _look(self, session: Session, *, seq: int) -> Any:
        """Return how far the upload is, and the content with this number if it is there."""
        c = statement_chunks.c
        both = statements.outerjoin(statement_chunks, sa.and_(c.statement_id == statements.c.id, c.seq == seq))
        query = sa.select(statements.c.status, statements.c.chunks, c.content).select_from(both)
        return session.execute(query.where(statements.c.id == self.row.id)).one()

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
