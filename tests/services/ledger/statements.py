"""Statements for tests: sent in pieces and imported, as a gateway and a ledger do it."""

import hashlib
import zlib
from typing import Any

import sqlalchemy as sa

from services.ledger.usecases import statements
from services.ledger.usecases.statement_import import import_statement
from shared.contracts.statements import CHUNK_BYTES_MAX, StatementView
from shared.passport import Passport
from shared.rpc.wire import Answer
from tests.conftest import person
from tests.services.ledger.conftest import Books
from tests.services.ledger.worlds import CHANNEL

ALICE = person("Alice", "administrator", None)
HEADER = "upstream_ref,order_no,amount,fee,currency,status,time\n"


def row(ref: str, **fields: str) -> str:
    """Return a line of CSV: a success of 10.00 CNY, with some fields put differently."""
    valid = {
        "upstream_ref": ref, "order_no": f"O-{ref}", "amount": "10.00", "fee": "0.10", "currency": "CNY",
        "status": "success", "time": "2026-11-22T09:30:00Z",
    }  # fmt: skip
    return ",".join((valid | fields).values()) + "\n"


def send(
    books: Books,
    content: bytes | str,
    *,
    passport: Passport = ALICE,
    key: str | None = None,
    chunk_bytes: int = CHUNK_BYTES_MAX,
    **terms: Any,
) -> Answer:
    """Send a statement as the gateway does, until it waits to be imported. Raises: what refuses it."""
    data = content.encode() if isinstance(content, str) else content
    begun = {"channel": CHANNEL, "format": "csv"} | terms
    statement_id = books.run(lambda s: statements.begin_statement(s, passport, **begun))["statement_id"]
    pieces = [data[start : start + chunk_bytes] for start in range(0, len(data), chunk_bytes)]
    for seq, piece in enumerate(pieces):
        add(books, statement_id, seq, piece, passport=passport)
    upload = {
        "statement_id": statement_id,
        "chunks": len(pieces),
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "idempotency_key": key,
    }
    answer: Answer = books.run(lambda session: statements.finish_statement(session, passport, **upload))
    return answer


def add(books: Books, statement_id: str, seq: int, piece: bytes, *, passport: Passport = ALICE) -> None:
    """Send one piece."""
    content = zlib.compress(piece, 1)
    books.run(
        lambda session: statements.add_statement_chunk(
            session, passport, statement_id=statement_id, seq=seq, content=content
        )
    )


def take(books: Books, content: bytes | str, **terms: Any) -> StatementView:
    """Send a statement and import it."""
    answer = send(books, content, **terms)
    view = import_statement(books, statement_id=answer.result["statement_id"], zone_name="Asia/Shanghai")
    assert view is not None
    return view


def records(books: Books) -> dict[str, Any]:
    """Return all upstream records by their reference."""
    rows = books.run(lambda session: session.execute(sa.text("select * from upstream_records")).all())
    return {record.upstream_ref: record for record in rows}
