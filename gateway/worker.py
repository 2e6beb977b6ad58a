"""gunicorn's gevent worker, which on stopping waits for requests, and not for connections that say nothing.

The stock worker waits for idle keep-alive connections as for requests: with `keepalive` longer than the grace, each
stop with one client connected took the whole grace and ended in SIGKILL.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from gunicorn.workers.ggevent import GeventWorker

LAST_WORD_SECONDS = 0.1


class DrainingWorker(GeventWorker):  # type: ignore[misc]  # gunicorn ships no types
    """Knows which of its connections are between two requests."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle: set[gevent.Greenlet] = set()

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Bound the wait for the next request of a connection; gunicorn waits for it nowhere else."""
        connection = gevent.getcurrent()
        self._idle.add(connection)
        try:
            with gevent.Timeout(self.cfg.keepalive if self.alive else LAST_WORD_SECONDS, False):
                yield
        finally:
            self._idle.discard(connection)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to stop: SIGTERM."""
        super().handle_exit(sig, frame)
        gevent.spawn(lambda: gevent.killall(list(self._idle), block=False))
