"""The platform as a running server, and its control API as methods."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import requests
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from simulators.payment_platform.app import create_app

SIMULATED_SECRET = "whsec_c2ltdWxhdGVkLXBheW1lbnQtcGxhdGZvcm0="  # noqa: S105  # of tests, and of nobody's money
CONTROL_TIMEOUT_SECONDS = 120
POLL_SECONDS = 0.05


class QuietHandler(WSGIRequestHandler):
    """Keeps connections alive, and logs nothing."""

    protocol_version = "HTTP/1.1"

    def log_request(self, *_: object) -> None:
        """Log nothing."""


class PlatformClient:
    """The control API of a platform at `url`, which may be another process."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def base_url(self, account: str) -> str:
        """Return where an account is asked: a channel's `base_url`."""
        return f"{self.url}/{account}"

    def make_payment(self, account: str, order_no: str, amount: str, **fields: Any) -> dict[str, Any]:
        """Make a payment in CNY, a success unless fields say otherwise. Returns: what the platform says of it."""
        body = {"account": account, "order_no": order_no, "amount": amount, "currency": "CNY", **fields}
        made: dict[str, Any] = self._send("POST", "payments", body).json()
        return made

    def make_payments(self, payments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Make many payments."""
        items: list[dict[str, Any]] = self._send("POST", "payments", list(payments)).json()["items"]
        return items

    def change_payment(self, account: str, upstream_ref: str, **fields: Any) -> dict[str, Any]:
        """Let a payment come into another status, or be otherwise different."""
        changed: dict[str, Any] = self._send("PATCH", f"payments/{account}/{upstream_ref}", fields).json()
        return changed

    def payments(self, account: str) -> list[dict[str, Any]]:
        """Return an account's payments."""
        answer = requests.get(
            f"{self.url}/control/payments", params={"account": account}, timeout=CONTROL_TIMEOUT_SECONDS
        )
        answer.raise_for_status()
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    def send_callbacks_to(self, account: str, url: str) -> None:
        """Say where an account's callbacks go."""
        self._send("PUT", f"callbacks/{account}", {"url": url})

    def deliver(self, account: str, **how: Any) -> dict[str, Any]:
        """Deliver callbacks; returns when they are delivered, with counts of statuses and outcomes."""
        found: dict[str, Any] = self._send("POST", "deliver", {"account": account, **how}).json()
        return found

    def plant(self, **world: Any) -> dict[str, Any]:
        """Make weeks of payments with mismatches, see `planting.make_plan`. Returns: `orders` and `planted`."""
        plan: dict[str, Any] = self._send("POST", "plant", world).json()
        return plan

    def statement(self, account: str, day: str, file_format: str = "csv", *, zone: str = "UTC") -> bytes:
        """Download a day of an account."""
        url = f"{self.url}/{account}/statements/{day}.{file_format}"
        answer = requests.get(url, params={"zone": zone}, timeout=CONTROL_TIMEOUT_SECONDS)
        answer.raise_for_status()
        return answer.content

    def order_fault(self, kind: str, target: str, **fields: Any) -> None:
        """Order a fault, see `faults.Fault`."""
        self._send("POST", "faults", {"kind": kind, "target": target, **fields})

    def clear_faults(self) -> None:
        """Behave again."""
        self._send("DELETE", "faults")

    def reset(self) -> None:
        """Forget everything."""
        self._send("POST", "reset")

    def _send(self, method: str, path: str, body: Any = None) -> requests.Response:
        answer = requests.request(method, f"{self.url}/control/{path}", json=body, timeout=CONTROL_TIMEOUT_SECONDS)
        answer.raise_for_status()
        return answer


class RunningPlatform(PlatformClient):
    """A platform served by threads of this process."""

    def __init__(self, server: BaseWSGIServer, secret: str) -> None:
        super().__init__(f"http://127.0.0.1:{server.server_port}")
        self.secret = secret
        self.place = f"127.0.0.1:{server.server_port}"
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def start_platform(port: int = 0, secret: str = SIMULATED_SECRET, *, host: str = "127.0.0.1") -> RunningPlatform:
    """Serve a platform; port 0 takes a free one."""
    server = make_server(host, port, create_app(secret), threaded=True, request_handler=QuietHandler)
    server.daemon_threads = True  # type: ignore[attr-defined]
    return RunningPlatform(server, secret)


@contextmanager
def running_platform(port: int = 0, secret: str = SIMULATED_SECRET) -> Iterator[RunningPlatform]:
    """Serve a platform for the length of a block."""
    platform = start_platform(port, secret)
    try:
        yield platform
    finally:
        platform.stop()
