"""Files go to the ledger a piece at a time, whatever they are sent as, and its answer says what became of them."""

import base64
import hashlib
import io
import zlib
from typing import Any

import pytest
from gunicorn.http.errors import ChunkMissingTerminator, InvalidChunkSize, NoMoreData

from gateway.api import statements
from gateway.api.statements import format_of
from shared.contracts.channels import ChannelNotFound
from shared.contracts.statements import CHUNK_BYTES_MAX, StatementAlreadyImported, StatementInvalid
from shared.errors import OutcomeUnknown
from shared.rpc.wire import Answer

FORM = "multipart/form-data; boundary=b"
PATH = "/api/v1/channels/alipay/statements"
CSV = b"upstream_ref,order_no,amount,fee,currency,status,time\nu1,O-1,1.00,,CNY,success,2026-11-22T09:30:00Z\n"
STATEMENT = {
    "statement_id": "sta_1",
    "channel": "alipay",
    "format": "csv",
    "filename": "day.csv",
    "sha256": "ab" * 32,
    "size_bytes": 100,
    "partial": False,
    "status": "imported",
    "percent_done": 100,
    "rows_done": 1,
    "rows_new": 1,
    "rows_changed": 0,
    "rows_unchanged": 0,
    "rows_refused": 0,
    "faults": [],
    "first_occurred_at": "2026-11-22T09:30:00Z",
    "last_occurred_at": "2026-11-22T09:30:00Z",
    "operator": "alice",
    "created_at": "2026-11-22T10:00:00Z",
    "finished_at": "2026-11-22T10:00:01Z",
}


@pytest.fixture
def ledger(services: Any) -> Any:
    """A ledger that takes whatever comes."""
    services.answer("ledger", "begin_statement", {"statement_id": "sta_1"})
    services.answer("ledger", "add_statement_chunk", None)
    services.answer("ledger", "abandon_statement", None)
    services.answer("ledger", "finish_statement", STATEMENT)
    return services


def content_of(ledger: Any) -> bytes:
    """Return the file that reached the ledger."""
    pieces = sorted(ledger.calls_of("ledger", "add_statement_chunk"), key=lambda call: call.arguments["seq"])
    assert [call.arguments["seq"] for call in pieces] == list(range(len(pieces)))
    return b"".join(zlib.decompress(base64.b64decode(call.arguments["content"])) for call in pieces)


def test_a_body_goes_to_the_ledger_whole(gateway: Any, ledger: Any) -> None:
    headers = {"Idempotency-Key": "k-1"}
    answer = gateway.alice.post(f"{PATH}?filename=day.csv", data=CSV, content_type="text/csv", headers=headers)
    assert (answer.status_code, answer.json) == (201, STATEMENT)
    assert answer.headers["Location"] == "/api/v1/statements/sta_1"
    [begun] = ledger.calls_of("ledger", "begin_statement")
    assert begun.arguments == {"channel": "alipay", "format": "csv", "partial": False, "filename": "day.csv"}
    assert content_of(ledger) == CSV
    [finished] = ledger.calls_of("ledger", "finish_statement")
    assert finished.arguments == {
        "statement_id": "sta_1", "chunks": 1, "size_bytes": len(CSV), "sha256": hashlib.sha256(CSV).hexdigest(),
    }  # fmt: skip
    # The key stands for the whole upload: a piece that bore it would be taken for it.
    assert [call.idempotency_key for call in ledger.calls if call.service == "ledger"] == [None, None, "k-1"]


def test_a_large_body_goes_in_pieces(gateway: Any, ledger: Any) -> None:
    body = bytes(range(256)) * 4096 * 3 + b"end"
    gateway.alice.post(PATH, data=body, content_type="application/octet-stream")
    assert content_of(ledger) == body
    sizes = [
        len(zlib.decompress(base64.b64decode(call.arguments["content"])))
        for call in ledger.calls_of("ledger", "add_statement_chunk")
    ]
    assert sorted(sizes) == [3] + [CHUNK_BYTES_MAX] * 3


@pytest.mark.parametrize("size", [10, 70_000, CHUNK_BYTES_MAX + 70_000])
def test_the_file_of_a_form_goes_to_the_ledger(gateway: Any, ledger: Any, size: int) -> None:
    body = (b"0123456789\r\n--\r\n" * (size // 16 + 1))[:size]
    data = {"file": (io.BytesIO(body), "a statement.csv")}
    assert gateway.alice.post(PATH, data=data, content_type="multipart/form-data").status_code == 201
    assert content_of(ledger) == body
    assert ledger.calls_of("ledger", "begin_statement")[0].arguments["filename"] == "a statement.csv"


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"other": (io.BytesIO(b"x"), "x.csv")}, "other"),
        ({"file": "no file"}, "file"),
        ({"colour": "red", "file": (io.BytesIO(b"x"), "x.csv")}, "colour"),
    ],
)
def test_a_form_has_the_file_and_nothing_else(gateway: Any, ledger: Any, data: Any, field: str) -> None:
    answer = gateway.alice.post(PATH, data=data, content_type="multipart/form-data")
    assert (answer.status_code, list(answer.json["errors"])) == (422, [field])
    assert ledger.calls_of("ledger", "finish_statement") == []


def test_two_files_in_a_form_are_refused_and_the_upload_is_abandoned(gateway: Any, ledger: Any) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"x" * 2 * CHUNK_BYTES_MAX
        + b'\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="b"\r\n\r\ny\r\n--b--\r\n'
    )  # fmt: skip
    answer = gateway.alice.post(PATH, data=body, content_type=FORM)
    assert answer.status_code == 422
    assert len(ledger.calls_of("ledger", "abandon_statement")) == 1
    assert ledger.calls_of("ledger", "finish_statement") == []


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"x", "multipart/form-data"),
        (b"no form", FORM),
        (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx',
            "multipart/form-data; boundary=b",
        ),
    ],
)
def test_what_is_no_form_is_a_400(gateway: Any, ledger: Any, body: bytes, content_type: str) -> None:
    assert gateway.alice.post(PATH, data=body, content_type=content_type).status_code == 400
    assert ledger.calls_of("ledger", "finish_statement") == []


def test_other_content_types_are_a_415(gateway: Any, ledger: Any) -> None:
    for content_type in ("application/json", "image/png", ""):
        assert gateway.alice.post(PATH, data=CSV, content_type=content_type).status_code == 415
    assert [call for call in ledger.calls if call.service == "ledger"] == []


def test_a_file_over_the_limit_is_a_413(gateway: Any, ledger: Any) -> None:
    terms = gateway.app.view_functions["statements.import_statement"].terms
    assert terms.body_bytes_max == 512 * 1024 * 1024
    environ = {"CONTENT_LENGTH": str(terms.body_bytes_max + 1)}
    answer = gateway.alice.post(PATH, data=CSV, content_type="text/csv", environ_overrides=environ)
    assert (answer.status_code, answer.json["code"]) == (413, "payload_too_large")
    assert ledger.calls_of("ledger", "begin_statement") == []


@pytest.mark.parametrize("content_type", ["text/csv", FORM])
@pytest.mark.parametrize("sent", [len(CSV), 0])
def test_a_file_whose_sender_is_gone_before_its_end_is_no_file(
    gateway: Any, ledger: Any, content_type: str, sent: int
) -> None:
    environ = {"CONTENT_LENGTH": str(len(CSV) + 1), "wsgi.input_terminated": True}  # as gunicorn has it
    answer = gateway.alice.post(PATH, data=CSV[:sent], content_type=content_type, environ_overrides=environ)
    assert answer.status_code == 400
    assert ledger.calls_of("ledger", "finish_statement") == []
    assert len(ledger.calls_of("ledger", "abandon_statement")) == len(ledger.calls_of("ledger", "begin_statement"))


class BrokenBody:
    """What gunicorn hands on of chunks that break off."""

    def __init__(self, data: bytes, error: Exception) -> None:
        self._data, self._error = data, error

    def read(self, _: int) -> bytes:
        data, self._data = self._data, b""
        if not data:
            raise self._error
        return data


@pytest.mark.parametrize("error", [ChunkMissingTerminator(b""), InvalidChunkSize(b"x"), NoMoreData(b"")])
def test_chunks_that_break_off_are_no_file(gateway: Any, ledger: Any, error: Exception) -> None:
    environ = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    broken = BrokenBody(CSV, error)
    answer = gateway.alice.post(PATH, content_type="text/csv", environ_overrides=environ | {"wsgi.input": broken})
    assert (answer.status_code, answer.json["code"]) == (400, "malformed_request")
    assert ledger.calls_of("ledger", "finish_statement") == []
    assert len(ledger.calls_of("ledger", "abandon_statement")) == len(ledger.calls_of("ledger", "begin_statement"))


def test_an_import_that_goes_on_is_a_202_and_a_replay_says_so(gateway: Any, ledger: Any) -> None:
    ledger.answer("ledger", "finish_statement", Answer(STATEMENT | {"status": "importing"}, is_replayed=True))
    answer = gateway.alice.post(f"{PATH}?partial=true&format=mt940", data=b"x", content_type="text/plain")
    assert (answer.status_code, answer.headers["Idempotent-Replayed"]) == (202, "true")
    arguments = ledger.calls_of("ledger", "begin_statement")[0].arguments
    assert (arguments["partial"], arguments["format"]) == (True, "mt940")


@pytest.mark.parametrize(
    ("method", "refusal", "status", "code"),
    [
        ("begin_statement", ChannelNotFound(), 404, "channel_not_found"),
        ("finish_statement", StatementAlreadyImported(statement_id="sta_0"), 409, "statement_already_imported"),
        ("finish_statement", StatementInvalid("line 2", faults=[]), 422, "statement_invalid"),
    ],
)
def test_refusals_are_problems(gateway: Any, ledger: Any, method: str, refusal: Any, status: int, code: str) -> None:
    ledger.answer("ledger", method, refusal)
    answer = gateway.alice.post(PATH, data=CSV, content_type="text/csv")
    assert (answer.status_code, answer.json["code"]) == (status, code)


def test_a_ledger_that_is_away_for_a_moment_gets_the_piece_again(
    gateway: Any, ledger: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "PAUSE_SECONDS", 0)
    failures = [OutcomeUnknown(), OutcomeUnknown()]

    def add(**_: Any) -> None:
        if failures:
            raise failures.pop()

    ledger.answer("ledger", "add_statement_chunk", add)
    assert gateway.alice.post(PATH, data=CSV, content_type="text/csv").status_code == 201
    assert [call.arguments["seq"] for call in ledger.calls_of("ledger", "add_statement_chunk")] == [0, 0, 0]


def test_a_ledger_that_stays_away_is_told(gateway: Any, ledger: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "PAUSE_SECONDS", 0)
    ledger.answer("ledger", "add_statement_chunk", OutcomeUnknown())
    assert gateway.alice.post(PATH, data=CSV, content_type="text/csv").status_code == 503
    assert ledger.calls_of("ledger", "finish_statement") == []


def test_a_card_number_in_a_files_name_is_masked(gateway: Any, ledger: Any) -> None:
    gateway.alice.post(f"{PATH}?filename=4111111111111111.csv", data=CSV, content_type="text/csv")
    assert "4111111111111111" not in ledger.calls_of("ledger", "begin_statement")[0].arguments["filename"]


def test_statements_are_listed_and_shown(gateway: Any, services: Any) -> None:
    services.answer("ledger", "list_statements", {"items": [STATEMENT], "next_cursor": None})
    services.answer("ledger", "get_statement", STATEMENT)
    listed = gateway.dora.get("/api/v1/statements?channel=alipay&status=imported")
    assert listed.json == {"items": [STATEMENT], "next_cursor": None}
    arguments = services.calls_of("ledger", "list_statements")[0].arguments
    assert (arguments["channel"], arguments["status"]) == ("alipay", "imported")
    assert gateway.dora.get("/api/v1/statements/sta_1").json == STATEMENT
    assert gateway.dora.post(PATH, data=CSV, content_type="text/csv").status_code == 403
    assert gateway.dora.get("/api/v1/statements?status=lost").status_code == 422


def test_the_records_of_a_statement_are_listed(gateway: Any, services: Any) -> None:
    record = {
        "channel": "alipay", "upstream_ref": "u1", "order_no": None, "amount": "1.00", "fee": "0", "currency": "CNY",
        "status": "success", "occurred_at": "2026-11-22T09:30:00Z", "source": "statement", "statement_id": "sta_1",
        "line": 2, "voided": False,
    }  # fmt: skip
    services.answer("ledger", "list_statement_records", {"items": [record], "next_cursor": None})
    path = "/api/v1/statements/sta_1/records"
    answer = gateway.dora.get(f"{path}?order_no=O-1&upstream_ref=u1&status=success&limit=7")
    assert answer.json == {"items": [record], "next_cursor": None}
    assert services.calls_of("ledger", "list_statement_records")[0].arguments == {
        "statement_id": "sta_1", "order_no": "O-1", "upstream_ref": "u1", "status": "success", "limit": 7,
        "cursor": None,
    }  # fmt: skip
    header, line = gateway.dora.get(path, headers={"Accept": "text/csv"}).text.splitlines()
    assert dict(zip(header.split(","), line.split(","), strict=True))["upstream_ref"] == "u1"
    for wrong in ("status=lost", f"order_no={'x' * 65}", "upstream_ref=", "line=2"):
        assert gateway.dora.get(f"{path}?{wrong}").status_code == 422


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (b"a,b\n", "csv"), (b"", "csv"), (b"\xef\xbb\xbf<?xml", "camt.053"), (b"\n <Document", "camt.053"),
        (b":20:X\n", "mt940"), (b"{1:F01}{4:\n:20:X", "mt940"), (b"header\n:20:X", "mt940"),
    ],
)  # fmt: skip
def test_a_format_is_known_by_its_first_bytes(first: bytes, name: str) -> None:
    assert format_of(first) == name
