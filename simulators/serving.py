"""What every simulator is made of: an HTTP server in threads of this process, and its control API as methods."""

import threading
from typing import Any

import requests
from flask import Flask
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

POLL_SECONDS = 0.05


class QuietHandler(WSGIRequestHandler):
    """Keeps connections alive, as the real ones do, and logs no path: a bot's token stands in it."""

    protocol_version = "HTTP/1.1"

    def log_request(self, *_: object) -> None:
        """Log nothing."""


class Control:
    """The control API of a simulator at `url`, which may be another process."""

    timeout_seconds = 10

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def clear_faults(self) -> None:
        """Behave again."""
        self._send("DELETE", "faults")

    def reset(self) -> None:
        """Forget everything."""
        self._send("POST", "reset")

    def _send(self, method: str, path: str, body: Any = None, **query: str) -> requests.Response:
        url = f"{self.url}/control/{path}"
        answer = requests.request(method, url, json=body, params=query, timeout=self.timeout_seconds)
        answer.raise_for_status()
        return answer


class Serving:
    """A server at work, until it is stopped."""

    def __init__(self, app: Flask, host: str, port: int) -> None:
        self._server: BaseWSGIServer = make_server(host, port, app, threaded=True, request_handler=QuietHandler)
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        self.place = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_SECONDS,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
