"""A payment platform for tests of callbacks: what it signs, and the least of its query API over real HTTP."""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from services.ledger.signatures import check_signature, sign
from tests.services.ledger.channels import SECRET

_ids = itertools.count(1)


def payment(order_no: str, **fields: Any) -> dict[str, Any]:
    """Return what a platform says of a payment of 10.00 CNY, with some fields put differently; None leaves one out."""
    said = {
        "order_no": order_no,
        "upstream_ref": f"up-{order_no}",
        "status": "success",
        "amount": "10.00",
        "currency": "CNY",
        "time": "2026-11-24T08:00:00Z",
    }
    return {name: value for name, value in (said | fields).items() if value is not None}


def signed(
    content: Any, *, secret: str = SECRET, webhook_id: str | None = None, age: timedelta = timedelta(0)
) -> tuple[dict[str, str], str]:
    """Return the headers and the body of a callback."""
    body = content if isinstance(content, str) else orjson.dumps(content).decode()
    message_id = f"msg_{next(_ids)}" if webhook_id is None else webhook_id
    return sign(secret, message_id=message_id, body=body.encode(), at=datetime.now(UTC) - age), body


class QueryApi:
    """What a platform answers when it is asked. `payments` are what it knows; `spoil` changes an answer on its way."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[str] = []
        self.payments: list[dict[str, Any]] = []
        self.spoil: Callable[[dict[str, str], bytes], tuple[int, dict[str, str], bytes]] | None = None

    @property
    def place(self) -> str:
        """Return its `host:port`."""
        return f"127.0.0.1:{self.port}"

    def config(self) -> dict[str, Any]:
        """Return the configuration of a channel that asks it."""
        return {"base_url": f"http://{self.place}", "query_secret": SECRET, "callback_secrets": [SECRET]}

    def answer(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Answer a question that is signed."""
        question_id, _ = check_signature([SECRET], headers, body)
        order_no = orjson.loads(body)["order_no"]
        self.asked.append(order_no)
        content = orjson.dumps({"payments": [p for p in self.payments if p["order_no"] == order_no]})
        signature = sign(SECRET, message_id=question_id, body=content, at=datetime.now(UTC))
        return self.spoil(signature, content) if self.spoil else (200, signature, content)


@contextmanager
def query_api() -> Iterator[QueryApi]:
    """Serve a platform's query API on loopback."""
    api = QueryApi()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/payments/query"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, headers, content = api.answer({k.lower(): v for k, v in self.headers.items()}, body)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        api.port = server.server_port
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield api
        server.shutdown()
