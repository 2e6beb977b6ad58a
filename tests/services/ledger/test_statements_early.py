"""A statement's import begins while its file comes in, and writes nothing unless it comes in whole."""

import hashlib
import threading
from contextvars import copy_context
from typing import Any

import pytest
import sqlalchemy as sa

from services.ledger.queries import statements as queries
from services.ledger.usecases import statement_import, statements
from services.ledger.usecases.statement_import import import_next_statement
from shared.contracts.statements import StatementAlreadyImported
from tests.e2e.conftest import eventually
from tests.services.ledger.conftest import Books
from tests.services.ledger.orders import events
from tests.services.ledger.statements import ALICE, HEADER, add, records, row, take
from tests.services.ledger.worlds import CHANNEL, add_channel

ROWS_A_PIECE = 50


@pytest.fixture
def books(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Books:
    """A ledger with a channel, and nothing else."""
    monkeypatch.setattr(statement_import, "PROGRESS_SECONDS", 0)
    monkeypatch.setattr(statement_import, "EARLY_WAIT_SECONDS_MAX", 20)
    monkeypatch.setattr(statement_import, "EARLY_PIECES_A_SECOND", 0)
    books = Books(engine)
    books.run(lambda session: session.execute(sa.text("truncate channels, upstream_records, outbox cascade")))
    books.run(add_channel)
    return books


def piece(number: int, **fields: str) -> str:
    """Return some rows."""
    return "".join(row(f"u{number * ROWS_A_PIECE + n}", **fields) for n in range(ROWS_A_PIECE))


class Upload:
    """A file that comes in a piece at a time."""

    def __init__(self, books: Books, **terms: Any) -> None:
        self.books = books
        begun = {"channel": CHANNEL, "format": "csv"} | terms
        self.id = books.run(lambda s: statements.begin_statement(s, ALICE, **begun))["statement_id"]
        self.sent: list[bytes] = []

    def send(self, *pieces: str) -> "Upload":
        for text in pieces:
            add(self.books, self.id, len(self.sent), text.encode())
            self.sent.append(text.encode())
        return self

    def finish(self) -> None:
        content = b"".join(self.sent)
        upload: dict[str, Any] = {
            "size_bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "idempotency_key": None,
        }
        self.books.run(
            lambda s: statements.finish_statement(s, ALICE, statement_id=self.id, chunks=len(self.sent), **upload)
        )

    def abandon(self) -> None:
        self.books.run(lambda s: statements.abandon_statement(s, statement_id=self.id))

    def view(self) -> Any:
        return self.books.run(lambda s: queries.get_statement(s, ALICE, statement_id=self.id))


class Importing:
    """An import that runs beside the test. Use as a context."""

    def __init__(self, books: Books) -> None:
        self.result: Any = "nothing yet"
        self._books = books
        context = copy_context()
        self._thread = threading.Thread(target=lambda: context.run(self._run), daemon=True)

    def _run(self) -> None:
        self.result = import_next_statement(self._books, zone_name="UTC")

    def __enter__(self) -> "Importing":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


def test_what_has_come_in_is_read_before_the_rest_has_and_shows_only_once_it_is_whole(books: Books) -> None:
    upload = Upload(books).send(HEADER + piece(0), piece(1), piece(2))
    with Importing(books) as importing:
        eventually(lambda: upload.view()["rows_done"] == 3 * ROWS_A_PIECE, within_seconds=10)
        assert (upload.view()["status"], records(books)) == ("receiving", {})
        upload.send(piece(3))
        eventually(lambda: upload.view()["rows_done"] == 4 * ROWS_A_PIECE, within_seconds=10)
        assert records(books) == {}
        upload.finish()
    assert importing.result == upload.view()
    assert (upload.view()["status"], upload.view()["rows_new"]) == ("imported", 4 * ROWS_A_PIECE)
    assert [r.line for r in records(books).values()] == list(range(2, 4 * ROWS_A_PIECE + 2))
    assert books.run(events) == ["StatementImported"]
    assert books.run(lambda s: s.scalar(sa.text("select count(*) from statement_chunks"))) == 0


def test_of_an_upload_that_is_given_up_nothing_is_kept(books: Books) -> None:
    upload = Upload(books).send(HEADER + piece(0), piece(1), piece(2))
    with Importing(books) as importing:
        eventually(lambda: upload.view()["rows_done"] > 0, within_seconds=10)
        upload.abandon()
    assert (importing.result, records(books), books.run(events)) == (None, {}, [])
    assert take(books, HEADER + piece(0))["status"] == "imported"


def test_one_that_comes_slowly_is_imported_when_it_is_whole(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statement_import, "EARLY_WAIT_SECONDS_MAX", 0.05)
    upload = Upload(books).send(HEADER + piece(0), piece(1), piece(2))
    with Importing(books) as importing:
        pass  # it waits for no more
    assert (importing.result, records(books)) == (None, {})
    assert import_next_statement(books, zone_name="UTC") is None  # nor does it begin again
    upload.send(piece(3)).finish()
    books.run(lambda s: s.execute(sa.text("update statements set attempted_at = attempted_at - interval '1 hour'")))
    view = import_next_statement(books, zone_name="UTC")
    assert view is not None
    assert (view["statement_id"], view["rows_new"]) == (upload.id, 4 * ROWS_A_PIECE)


@pytest.mark.parametrize("is_partial", [False, True])
def test_faults_are_named_once_it_is_whole(books: Books, is_partial: bool) -> None:
    upload = Upload(books, partial=is_partial).send(HEADER + piece(0), row("bad", amount="x"), piece(1))
    with Importing(books) as importing:
        pass
    assert (importing.result, records(books)) == (None, {})
    upload.send(row("worse", status="?")).finish()
    books.run(lambda s: s.execute(sa.text("update statements set attempted_at = attempted_at - interval '1 hour'")))
    view = import_next_statement(books, zone_name="UTC")
    assert view is not None
    assert [(fault["line"], fault["column"]) for fault in view["faults"]] == [(52, "amount"), (103, "status")]
    assert len(records(books)) == (100 if is_partial else 0)


def test_one_that_is_bad_is_not_refused_before_it_is_whole(books: Books) -> None:
    upload = Upload(books).send(HEADER + piece(0), *(piece(n, amount="x") for n in range(1, 5)))
    with Importing(books) as importing:
        pass
    assert (importing.result, upload.view()["status"], books.run(events)) == (None, "receiving", [])


def test_known_records_are_changed_by_one_that_comes_in(books: Books) -> None:
    take(books, HEADER + piece(1, status="pending"))
    upload = Upload(books).send(HEADER + piece(0), piece(1), piece(2))
    with Importing(books) as importing:
        upload.send(piece(3)).finish()
    assert (importing.result["rows_new"], importing.result["rows_changed"]) == (150, 50)
    assert {record.status for record in records(books).values()} == {"success"}


def test_a_second_upload_of_a_file_that_was_taken_changes_nothing(books: Books) -> None:
    pieces = [HEADER + piece(0), piece(1), piece(2)]
    first = take(books, "".join(pieces))
    upload = Upload(books).send(*pieces)
    with Importing(books) as importing:
        with pytest.raises(StatementAlreadyImported):
            upload.finish()
        upload.abandon()
    assert importing.result is None
    assert {record.statement_id for record in records(books).values()} == {first["statement_id"]}
    assert books.run(events) == ["StatementImported"]


def test_what_may_be_small_or_comes_slowly_or_is_no_csv_comes_in_first(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    Upload(books).send(HEADER + piece(0), piece(1))
    assert import_next_statement(books, zone_name="UTC") is None
    monkeypatch.setattr(statement_import, "EARLY_PIECES_A_SECOND", 16)
    slow = Upload(books).send(HEADER + piece(0), piece(1), piece(2), piece(3))
    aging = "update statements set created_at = created_at - interval '1 s' where id = :id"
    books.run(lambda s: s.execute(sa.text(aging), {"id": slow.id}))
    Upload(books, format="mt940").send("a", "b", "c")
    assert import_next_statement(books, zone_name="UTC") is None
    attempts = books.run(lambda s: s.scalars(sa.text("select attempts from statements")).all())
    assert attempts == [0, 0, 0]
