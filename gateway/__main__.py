"""Serves the gateway: `python -m gateway`. gunicorn with gevent workers, which drain before they stop.

Nothing of the application is imported here: gevent patches the standard library in the worker, and what was
imported before would keep the unpatched half.
"""

import os
import tempfile
from typing import Any

from gunicorn.app.base import BaseApplication

PORT_DEFAULT = 8080
GRACE_SECONDS = 25
CONNECTIONS_MAX = 1000


class Gateway(BaseApplication):  # type: ignore[misc]  # ships no types
    """gunicorn, told everything here and nothing by files or the command line."""

    def load_config(self) -> None:
        """Set gunicorn up from the environment."""
        for name, value in settings(dict(os.environ)).items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Return the application, within the worker that serves it."""
        from gateway.process import start

        return start()


def settings(environment: dict[str, str]) -> dict[str, Any]:
    """Return gunicorn's settings: on loopback unless BIND names other addresses, one worker unless told otherwise."""
    port = environment.get("PORT", str(PORT_DEFAULT))
    return {
        "bind": environment.get("BIND", f"127.0.0.1:{port}").split(","),
        "workers": workers_of(environment),
        "worker_class": environment.get("GATEWAY_WORKER_CLASS", "gateway.worker.DrainingWorker"),
        "threads": int(environment.get("GATEWAY_THREADS", "64")),
        "worker_connections": CONNECTIONS_MAX,
        "graceful_timeout": GRACE_SECONDS,
        "timeout": 60,
        "keepalive": 30,
        "limit_request_line": 8190,
        "backlog": 1024,
        "proc_name": "countinghouse-gateway",
        "accesslog": None,
        "errorlog": "-",
        "loglevel": "warning",
        "control_socket_disable": True,
        "forwarded_allow_ips": "",
        "worker_exit": _stop_worker,
    }


def workers_of(environment: dict[str, str]) -> int:
    """Return how many worker processes to run: GATEWAY_WORKERS, or what supervisors call WEB_CONCURRENCY."""
    return int(environment.get("GATEWAY_WORKERS") or environment.get("WEB_CONCURRENCY") or "1")


def _stop_worker(_server: Any, _worker: Any) -> None:
    from gateway.process import stop

    stop()


def main() -> None:
    """Serve until told to stop."""
    if workers_of(dict(os.environ)) > 1:
        # Each worker counts for itself; /metrics adds them up from these files.
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="gateway-metrics-"))
    Gateway().run()


if __name__ == "__main__":
    main()
