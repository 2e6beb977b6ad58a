"""Posting a file: each batch once, under one key, whatever happens meanwhile; then the comparison."""

import io
import json
import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from simulators import post_changes
from simulators.gateway_client import GatewayClient, GatewayRefused, GatewayUnreachable, SignIn
from simulators.sample_data import SampleChange, make_changes, summarize, write_changes


class FakeGateway(ThreadingHTTPServer):
    """Remembers what is posted under its keys, as the real one does, and fails as it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FakeGatewayHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.merchants = [{"id": "mer_a", "code": "A"}]
        self.entries: list[dict[str, Any]] = []
        self.answers: dict[str, tuple[bytes, dict[str, Any]]] = {}
        self.keys_seen: list[str] = []
        self.failures: list[int] = []
        self.sign_ins = 0
        self.tokens: set[str] = set()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class FakeGatewayHandler(BaseHTTPRequestHandler):
    server: FakeGateway

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = urlsplit(self.path).path.removeprefix("/api/v1")
        if path == "/auth/login":
            self._log_in(json.loads(body))
        elif self._is_signed_in():
            self._post_once(path, body)

    def do_GET(self) -> None:
        if not self._is_signed_in():
            return
        url = urlsplit(self.path)
        if url.path == "/api/v1/merchants":
            self._answer(200, {"items": self.server.merchants, "next_cursor": None})
        else:
            [user_id] = parse_qs(url.query)["user_id"]
            rows = [SampleChange(**row) for row in self.server.entries if row["user_id"] == user_id]
            items = [
                {
                    "type": key[0],
                    "currency": key[1],
                    "count": t.count,
                    "increase": str(t.increase),
                    "decrease": str(t.decrease),
                }
                for key, t in summarize(rows).items()
            ]
            self._answer(200, {"items": items, "totals": []})

    def _log_in(self, body: dict[str, Any]) -> None:
        if body != {"username": "ada", "password": "s3cret"}:
            self._answer(401, {"code": "invalid_credentials", "detail": "no"})
            return
        self.server.sign_ins += 1
        token = f"t{self.server.sign_ins}"
        self.server.tokens.add(token)
        self._answer(200, {"access_token": token, "must_change_password": False})

    def _is_signed_in(self) -> bool:
        is_known = self.headers.get("Authorization", "").removeprefix("Bearer ") in self.server.tokens
        if not is_known:
            self._answer(401, {"code": "unauthenticated", "detail": "no"})
        return is_known

    def _post_once(self, path: str, body: bytes) -> None:
        key = self.headers["Idempotency-Key"]
        self.server.keys_seen.append(key)
        failure = self.server.failures.pop(0) if self.server.failures else 0
        if failure == 401:
            self.server.tokens.clear()
            self._is_signed_in()
        elif failure == 409:
            self._answer(409, {"code": "idempotency_in_progress", "detail": "wait"})
        elif failure == 422:
            self._answer(422, {"code": "wrong_sign", "detail": "changes.3.amount"})
        elif failure in (500, 503):
            self._answer(failure, {"code": "x", "detail": "no"})
        elif key in self.server.answers and self.server.answers[key][0] != body:
            self._answer(409, {"code": "idempotency_key_reused", "detail": "another body"})
        elif key in self.server.answers:
            self._answer(200, self.server.answers[key][1], {"Idempotent-Replayed": "true"})
        else:
            answer = self._carry_out(path, json.loads(body))
            self.server.answers[key] = body, answer
            if failure == -1:  # carried out, and the answer is lost
                self.close_connection = True
                return
            self._answer(200, answer)

    def _carry_out(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "/merchants":
            self.server.merchants.append({"id": f"mer_{body['code'].lower()}", "code": body["code"]})
            return self.server.merchants[-1]
        for change in body["changes"]:
            row = {**change, "type": str(change["type"]), "merchant_code": change["merchant_id"]}
            del row["merchant_id"]
            self.server.entries.append(row)
        return {"items": [], "posted": len(body["changes"]), "refused": 0}

    def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway() as running:
        yield running
        running.shutdown()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "changes.csv"
    made = io.StringIO()
    write_changes(make_changes(rows=120, users=5, seed=1, merchants=["A", "B"]), made)
    path.write_text(made.getvalue())
    return path


@pytest.fixture
def run(gateway: FakeGateway, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Posts the file by the command. Returns: its exit status and what it printed."""

    def run(*options: str, password: str = "s3cret") -> tuple[int, str]:
        monkeypatch.setenv("COUNTINGHOUSE_PASSWORD", password)
        words = [str(file), "--url", gateway.url, "--username", "ada", "--batch-size", "50", *options]
        status = post_changes.main(words)
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return run


def test_file_is_posted_in_batches_and_compared(gateway: FakeGateway, run: Any) -> None:
    status, printed = run()
    assert status == 0
    assert len(gateway.entries) == 120
    assert "120 changes in 3 batches, 0 of them posted before" in printed
    assert "The gateway's summary equals the file's." in printed
    assert [merchant["code"] for merchant in gateway.merchants] == ["A", "B"]
    assert {entry["merchant_code"] for entry in gateway.entries} == {"mer_a", "mer_b"}


def test_second_run_changes_nothing(gateway: FakeGateway, run: Any) -> None:
    run()
    status, printed = run()
    assert (status, len(gateway.entries)) == (0, 120)
    assert "120 changes in 3 batches, 3 of them posted before" in printed


@pytest.mark.parametrize("failure", [-1, 401, 409, 500, 503])
def test_batch_that_fails_is_repeated_under_its_key(gateway: FakeGateway, run: Any, failure: int) -> None:
    gateway.failures = [0, 0, failure]  # the merchant and the first batch go well
    status, _ = run()
    assert (status, len(gateway.entries)) == (0, 120)
    batches = [key for key in gateway.keys_seen if key.startswith("changes-")]
    assert len(batches) == 4
    assert batches[1] == batches[2]
    assert len(set(batches)) == 3


def test_refusal_stops_the_file_and_is_told(gateway: FakeGateway, run: Any) -> None:
    gateway.failures = [0, 0, 422]
    status, printed = run()
    assert status == 1
    assert "stopped: 422 wrong_sign: changes.3.amount" in printed
    assert len(gateway.entries) == 50


def test_difference_is_told(gateway: FakeGateway, run: Any) -> None:
    run()
    gateway.entries.append({**gateway.entries[0], "amount": "0.01"})
    status, printed = run()
    assert status == 1
    assert "DIFFERS" in printed
    assert "NO" in printed


def test_another_batch_size_is_refused_and_explained(gateway: FakeGateway, run: Any) -> None:
    run()
    status, printed = run("--batch-size", "60")
    assert (status, len(gateway.entries)) == (1, 120)
    assert "posted before with another --batch-size" in printed


def test_wrong_password_is_told(run: Any) -> None:
    status, printed = run(password="guess")
    assert status == 1
    assert "401 invalid_credentials" in printed


def test_client_gives_up_in_the_end(gateway: FakeGateway) -> None:
    gateway.failures = [503] * 50
    client = GatewayClient(SignIn(gateway.url, "ada", "s3cret"), retry_seconds_max=0.5)
    with pytest.raises(GatewayUnreachable, match="status 503"):
        client.post("/merchants", {"code": "X", "name": "X"}, key="k")


def test_api_key_signs_in_without_a_password(gateway: FakeGateway) -> None:
    gateway.tokens.add("key")
    assert list(GatewayClient(SignIn(gateway.url, api_key="key")).items("/merchants")) == gateway.merchants
    with pytest.raises(GatewayRefused, match="401"):
        GatewayClient(SignIn(gateway.url, api_key="other")).get("/merchants")
    assert gateway.sign_ins == 0


def test_sign_in_is_read_from_the_launchers_file(tmp_path: Path) -> None:
    path = tmp_path / "first-sign-in.json"
    path.write_text('{"url": "http://127.0.0.1:1", "username": "admin", "password": "p"}')
    assert SignIn.read(path) == SignIn("http://127.0.0.1:1", "admin", "p")


def test_table_shows_what_only_one_side_has() -> None:
    file = summarize([SampleChange(merchant_code="A", user_id="u", type="321", amount="5.00", currency="CNY")])
    lines = post_changes.table_of(file, {})
    assert lines[-1].split() == ["321", "CNY", "1", "5.00", "-", "-", "NO"]
    assert file[321, "CNY"].net == Decimal(5)
