"""The emulator as a running server on loopback, and its control API as methods."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from simulators.telegram.app import create_app

SIMULATED_TOKEN = "1000000001:simulated-bot-token-which-is-no-secret"  # noqa: S105
CONTROL_TIMEOUT_SECONDS = 10
POLL_SECONDS = 0.05


class QuietHandler(WSGIRequestHandler):
    """Keeps connections alive, as the real one does, and logs no path: the bot's token stands in it."""

    protocol_version = "HTTP/1.1"

    def log_request(self, *_: object) -> None:
        """Log nothing."""


class ControlClient:
    """The control API of an emulator at `url`, which may be another process."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def messages(self, chat_id: int | None = None) -> list[dict[str, Any]]:
        """Answer the bot's messages, oldest first."""
        query = {} if chat_id is None else {"chat_id": str(chat_id)}
        answer = requests.get(f"{self.url}/control/messages", params=query, timeout=CONTROL_TIMEOUT_SECONDS)
        answer.raise_for_status()
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    def order_fault(self, kind: str, **fields: Any) -> None:
        """Order a fault, see `faults.Fault`."""
        self._send("POST", "faults", {"kind": kind, **fields})

    def clear_faults(self) -> None:
        """Behave again."""
        self._send("DELETE", "faults")

    def name_chat(self, chat_id: int, title: str) -> None:
        """Give a chat its title."""
        self._send("PUT", f"chats/{chat_id}", {"title": title})

    def member_writes(self, chat_id: int, text: str, **fields: Any) -> dict[str, Any]:
        """Let a person write in a chat; answers the update."""
        body = {"chat_id": chat_id, "text": text, **fields}
        update: dict[str, Any] = self._send("POST", "updates", body).json()
        return update

    def reset(self) -> None:
        """Forget everything."""
        self._send("POST", "reset")

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> requests.Response:
        url = f"{self.url}/control/{path}"
        answer = requests.request(method, url, json=body, timeout=CONTROL_TIMEOUT_SECONDS)
        answer.raise_for_status()
        return answer


class RunningSimulator(ControlClient):
    """An emulator served by threads of this process."""

    def __init__(self, server: BaseWSGIServer, token: str) -> None:
        super().__init__(f"http://127.0.0.1:{server.server_port}")
        self.token = token
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def start_simulator(port: int = 0, token: str = SIMULATED_TOKEN) -> RunningSimulator:
    """Serve an emulator on 127.0.0.1; port 0 takes a free one."""
    server = make_server("127.0.0.1", port, create_app(token), threaded=True, request_handler=QuietHandler)
    server.daemon_threads = True  # type: ignore[attr-defined]
    return RunningSimulator(server, token)


@contextmanager
def running_simulator(port: int = 0, token: str = SIMULATED_TOKEN) -> Iterator[RunningSimulator]:
    """Serve an emulator for the length of a block."""
    simulator = start_simulator(port, token)
    try:
        yield simulator
    finally:
        simulator.stop()
