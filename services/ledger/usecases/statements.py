"""How a statement comes in: begun, sent in pieces, finished; then it is imported (`statement_import.py`)."""

import zlib
from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.ledger.models.statements import statement_chunks, statement_view, statements
from services.ledger.queries.channels import channel_row
from services.ledger.queries.statements import require_all_merchants
from shared.contracts.statements import (
    CHUNK_BYTES_MAX,
    STATEMENT_BYTES_MAX,
    STATEMENT_FORMATS,
    StatementAlreadyImported,
    StatementEmpty,
    StatementIncomplete,
    StatementInvalid,
    StatementNotFound,
    StatementNotReceiving,
    StatementTooLarge,
    StatementView,
)
from shared.errors import IdempotencyKeyReused, InvalidRequest
from shared.ids import new_id
from shared.passport import Passport
from shared.rpc.wire import Answer

UPLOAD_HOURS_MAX: Final = 1
FILENAME_LENGTH_MAX: Final = 200
COMPRESSION_LEVEL: Final = 1  # a quarter of the bytes for a twentieth of the time of the default


def begin_statement(
    session: Session,
    passport: Passport,
    *,
    channel: str,
    format: str,
    partial: bool = False,
    filename: str | None = None,
) -> StatementView:
    """Begin an upload.

    Raises, in order: StatementsAreForAll; InvalidRequest; ChannelNotFound.
    """
    require_all_merchants(passport)
    if format not in STATEMENT_FORMATS:
        raise InvalidRequest.of_field("format", f"Must be one of {', '.join(STATEMENT_FORMATS)}.")
    if filename is not None and not _is_filename(filename):
        raise InvalidRequest.of_field("filename", f"Must have at most {FILENAME_LENGTH_MAX} printable characters.")
    channel_row(session, channel)
    values = {
        "id": new_id("sta"),
        "channel": channel,
        "format": format,
        "filename": filename,
        "is_partial": bool(partial),
        "actor_id": passport.actor_id,
        "actor_name": passport.actor_name,
        "actor_type": passport.actor_type,
        "request_id": passport.request_id,
    }
    return statement_view(session.execute(sa.insert(statements).values(values).returning(statements)).one())


def _is_filename(filename: Any) -> bool:
    return type(filename) is str and len(filename) <= FILENAME_LENGTH_MAX and filename.isprintable()


def add_statement_chunk(session: Session, passport: Passport, *, statement_id: str, seq: int, content: bytes) -> None:
    """Keep a piece of an upload.

    content: zlib of at most `CHUNK_BYTES_MAX` bytes.
    Raises, in order: StatementsAreForAll; InvalidRequest; StatementNotFound; StatementNotReceiving; StatementTooLarge.
    Idempotent: on statement and seq.
    """
    require_all_merchants(passport)
    if type(seq) is not int or not 0 <= seq * CHUNK_BYTES_MAX < STATEMENT_BYTES_MAX:
        raise StatementTooLarge
    unpacked(content)
    own = (statements.c.id == statement_id, statements.c.actor_id == passport.actor_id)
    status = session.scalar(sa.select(statements.c.status).where(*own).with_for_update(key_share=True, read=True))
    if status is None:
        raise StatementNotFound
    if status != "receiving":
        raise StatementNotReceiving
    values = {"statement_id": statement_id, "seq": seq, "content": content}
    session.execute(insert(statement_chunks).values(values).on_conflict_do_nothing())


def unpacked(content: bytes) -> bytes:
    """Return the bytes of a piece. Raises: InvalidRequest for what is no zlib, or too much."""
    decompressor = zlib.decompressobj()
    try:
        data = decompressor.decompress(content, CHUNK_BYTES_MAX)
    except zlib.error:
        raise InvalidRequest.of_field("content", "Not zlib.") from None
    if not decompressor.eof:
        raise InvalidRequest.of_field("content", f"More than {CHUNK_BYTES_MAX} bytes.")
    return data


def finish_statement(
    session: Session,
    passport: Passport,
    *,
    statement_id: str,
    chunks: int,
    size_bytes: int,
    sha256: str,
    idempotency_key: str | None,
) -> Answer:
    """End an upload, so that it is imported. With the key of an upload before, answer what became of that one.

    Raises, in order: StatementsAreForAll; StatementNotFound; StatementNotReceiving; StatementIncomplete;
    IdempotencyKeyReused; what the first upload with this key was refused for; StatementEmpty;
    StatementAlreadyImported.
    Locks: the statement, its key, its file.
    """
    require_all_merchants(passport)
    own = (statements.c.id == statement_id, statements.c.actor_id == passport.actor_id)
    row = session.execute(sa.select(statements).where(*own).with_for_update()).first()
    if row is None:
        raise StatementNotFound
    if row.status != "receiving":
        if idempotency_key is not None and row.idempotency_key == idempotency_key:
            return _replayed(row, row, bytes.fromhex(sha256))
        raise StatementNotReceiving
    received = session.scalar(
        sa.select(sa.func.count()).where(
            statement_chunks.c.statement_id == statement_id, statement_chunks.c.seq < chunks
        )
    )
    if received != chunks:
        raise StatementIncomplete
    digest = bytes.fromhex(sha256)
    if idempotency_key is not None:
        # One upload that is sent twice at once: the second waits here, and is answered as the first was.
        _wait_for_others(session, f"key {passport.actor_id} {idempotency_key}")
        first = _of_key(session, passport, idempotency_key)
        if first is not None:
            return _replayed(first, row, digest)
    if not size_bytes:
        raise StatementEmpty
    # Two uploads of one file at once: the second waits here until the first is known.
    _wait_for_others(session, f"file {row.channel} {sha256}")
    c = statements.c
    taken = sa.select(c.id).where(c.channel == row.channel, c.sha256 == digest, c.status.in_(("importing", "imported")))
    if (first_id := session.scalar(taken)) is not None:
        raise StatementAlreadyImported(f"It is {first_id}.", statement_id=first_id)
    values = {
        "status": "importing",
        "sha256": digest,
        "size_bytes": size_bytes,
        "chunks": chunks,
        "idempotency_key": idempotency_key,
    }
    importing = sa.update(statements).where(statements.c.id == statement_id).values(values).returning(statements)
    return Answer(statement_view(session.execute(importing).one()))


def _wait_for_others(session: Session, what: str) -> None:
    """Wait until no other transaction ends an upload with this key, or of this file."""
    locking = sa.text("select pg_advisory_xact_lock(hashtextextended('statement ' || :what, 0))")
    session.execute(locking, {"what": what})


def refusal_of(view: StatementView) -> StatementInvalid:
    """Return the refusal of a statement that was read at once, with its faults."""
    errors: dict[str, list[str]] = {}
    for fault in view["faults"]:
        place = f"line {fault['line']}" + (f", {fault['column']}" if fault["column"] else "")
        errors.setdefault(place, []).append(fault["message"])
    place, messages = next(iter(errors.items()), ("line 1", [StatementInvalid.title]))
    return StatementInvalid(
        f"{place}: {messages[0]}", errors=errors, statement_id=view["statement_id"], faults=view["faults"]
    )


def abandon_statement(session: Session, *, statement_id: str, actor_id: str | None = None) -> None:
    """Forget an upload that came to nothing.

    actor_id: whose it must be; None for anybody's.
    """
    conditions = [statements.c.id == statement_id, statements.c.status == "receiving"]
    if actor_id is not None:
        conditions.append(statements.c.actor_id == actor_id)
    values = {"status": "abandoned", "finished_at": sa.func.clock_timestamp()}
    abandoning = sa.update(statements).where(*conditions).values(values).returning(statements.c.id)
    if session.execute(abandoning).first() is not None:
        session.execute(sa.delete(statement_chunks).where(statement_chunks.c.statement_id == statement_id))


def sweep_uploads(session: Session) -> None:
    """Forget the uploads that nobody goes on with."""
    old = sa.func.clock_timestamp() - timedelta(hours=UPLOAD_HOURS_MAX)
    query = sa.select(statements.c.id).where(statements.c.status == "receiving", statements.c.created_at < old)
    for statement_id in session.scalars(query).all():
        abandon_statement(session, statement_id=statement_id)


def _of_key(session: Session, passport: Passport, idempotency_key: str) -> Any:
    return session.execute(
        sa.select(statements).where(
            statements.c.actor_id == passport.actor_id, statements.c.idempotency_key == idempotency_key
        )
    ).first()


def _replayed(first: Any, row: Any, digest: bytes) -> Answer:
    same = (first.channel, first.format, first.is_partial, first.sha256)
    if same != (row.channel, row.format, row.is_partial, digest):
        raise IdempotencyKeyReused
    view = statement_view(first)
    if view["status"] == "refused":
        refusal = refusal_of(view)
        refusal.extra["is_replayed"] = True
        raise refusal
    return Answer(view, is_replayed=True)
