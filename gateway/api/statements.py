"""Statements: the files in which payment platforms say what they did."""

import base64
import hashlib
import time
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from flask import Response

from gateway import answers, authorization
from gateway.blueprint import Blueprint
from gateway.context import context
from gateway.paging import Listing, listing
from gateway.rpc import bus, call
from gateway.schemas.statements import (
    FILENAME_LENGTH_MAX,
    StatementQuery,
    StatementSchema,
    StatementUploadQuery,
    UpstreamRecordQuery,
    UpstreamRecordSchema,
)
from gateway.streams import SentFile, takes_file
from gateway.terms import body_up_to, needs, within
from shared.contracts.statements import CHUNK_BYTES_MAX, STATEMENT_BYTES_MAX
from shared.errors import ServiceError, Unavailable
from shared.masking import mask_text

CONTENT_TYPES = ("text/csv", "application/xml", "text/xml", "text/plain", "application/octet-stream")
UPLOAD_SECONDS_MAX = 900
UNDER_WAY_MAX = 3  # pieces at once: the ledger writes one while the next comes over the bus
TRIES_MAX = 30  # a ledger that is killed is back by then
PAUSE_SECONDS = 1.0
COMPRESSION_LEVEL = 1  # a fifth of the bytes on the bus and in the database, for less time than it takes to seal them

blueprint = Blueprint("statements", __name__, description="Statements of payment platforms, and their import.")
_pick = answers.pick_of(StatementSchema())


@blueprint.post("/channels/<code>/statements")
@needs("mismatches:operate")
@body_up_to(megabytes=STATEMENT_BYTES_MAX // 1024**2)
@within(seconds=UPLOAD_SECONDS_MAX)
@takes_file(blueprint, content_types=CONTENT_TYPES)
@blueprint.arguments(StatementUploadQuery, location="query")
@blueprint.response(202, StatementSchema, description="It has come in whole, and is being imported.")
@blueprint.alt_response(201, schema=StatementSchema, description="It was imported.", success=True)
def import_statement(query: dict[str, Any], code: str) -> Response:
    """Import a statement: CSV, MT940 or camt.053, of up to 512 MiB; a bad one is refused by line and column."""
    view = _send(SentFile(content_types=CONTENT_TYPES), channel=code, **query)
    response = answers.json_response(_pick(view), 201 if view["status"] == "imported" else 202)
    response.headers["Location"] = f"/api/v1/statements/{view['statement_id']}"
    return response


@blueprint.get("/statements")
@needs("mismatches:read")
@blueprint.arguments(StatementQuery, location="query")
@blueprint.listing(StatementSchema)
def list_statements(query: dict[str, Any]) -> Listing:
    """List statements, newest first."""
    return listing("ledger", "list_statements", **query)


@blueprint.get("/statements/<statement_id>")
@needs("mismatches:read")
@blueprint.response(200, StatementSchema)
def get_statement(statement_id: str) -> Any:
    """Show a statement, how far its import is, and what is wrong with its rows."""
    return call("ledger", "get_statement", statement_id=statement_id)


@blueprint.get("/statements/<statement_id>/records")
@needs("mismatches:read")
@blueprint.arguments(UpstreamRecordQuery, location="query")
@blueprint.listing(UpstreamRecordSchema)
def list_statement_records(query: dict[str, Any], statement_id: str) -> Listing:
    """List the records that say what this statement said last, in the order in which they came in."""
    return listing("ledger", "list_statement_records", statement_id=statement_id, **query)


def _send(file: SentFile, *, channel: str, format: str | None, is_partial: bool, filename: str | None) -> Any:
    """Send a file to the ledger as it comes in, a piece at a time. Returns: the statement."""
    pieces = file.pieces(CHUNK_BYTES_MAX)
    first = next(pieces, b"")
    name = mask_text(filename or file.filename or "")[:FILENAME_LENGTH_MAX]
    begun = _call(
        "begin_statement",
        channel=channel,
        format=format or format_of(first),
        partial=is_partial,
        filename="".join(sign for sign in name if sign.isprintable()) or None,
    )
    statement_id = begun["statement_id"]
    try:
        sent = _send_pieces(statement_id, first, pieces)
        authorization.check_again()
    except Exception:
        _abandon(statement_id)
        raise
    # The key is the whole upload's, so that only its end bears it.
    return call("ledger", "finish_statement", statement_id=statement_id, **sent)


def _send_pieces(statement_id: str, first: bytes, further: Iterator[bytes]) -> dict[str, Any]:
    """Send pieces, one while the next is read and packed. Returns: what they are together."""
    digest, size_bytes, seq = hashlib.sha256(), 0, 0
    under_way: deque[Future[None]] = deque()
    piece: bytes | None = first or None
    with ThreadPoolExecutor(UNDER_WAY_MAX) as pool:
        while piece is not None:
            digest.update(piece)
            size_bytes += len(piece)
            content = base64.b64encode(zlib.compress(piece, COMPRESSION_LEVEL)).decode()
            under_way.append(pool.submit(copy_context().run, _send_piece, statement_id, seq, content))
            seq += 1
            while len(under_way) >= UNDER_WAY_MAX:
                under_way.popleft().result()
            piece = next(further, None)
        while under_way:
            under_way.popleft().result()
    return {"chunks": seq, "size_bytes": size_bytes, "sha256": digest.hexdigest()}


def _send_piece(statement_id: str, seq: int, content: str) -> None:
    """Send a piece, again where the ledger is away for a moment: to have it twice is to have it once."""
    for tries_left in reversed(range(TRIES_MAX)):
        try:
            _call("add_statement_chunk", statement_id=statement_id, seq=seq, content=content)
        except Unavailable:
            if not tries_left:
                raise
            time.sleep(PAUSE_SECONDS)
        else:
            return


def _abandon(statement_id: str) -> None:
    try:
        _call("abandon_statement", statement_id=statement_id)
    except ServiceError:
        return  # the ledger sweeps it up


def _call(method: str, **arguments: Any) -> Any:
    """Call the ledger without the request's idempotency key."""
    current = context()
    seconds = current.seconds_left()
    return bus().call("ledger", method, passport=current.passport, timeout_seconds=seconds, **arguments).result


def format_of(first: bytes) -> str:
    """Return the format that a file's first bytes are of."""
    start = first[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"<"):
        return "camt.053"
    if start.startswith((b":20:", b"{1:", b":25:", b"\x01{1:")) or b"\n:20:" in start or b"\n:61:" in start:
        return "mt940"
    return "csv"
