"""Keeps one service that has stopped answering from slowing the requests that do not need it (RELIABILITY.md R9).

pybreaker holds its lock during the call, so that all calls to a service would wait for each other; hence this one.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import ServiceUnavailable

FAILURES_MAX = 5
OPEN_SECONDS = 2.0
IN_FLIGHT_MAX = 256
QUEUE_SECONDS_MAX = 1.0


class Breaker:
    """Refuses calls for `OPEN_SECONDS` after `FAILURES_MAX` calls in a row got no answer, then lets one through."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether a call would be refused right now."""
        return self._failures >= FAILURES_MAX and time.monotonic() < self._open_until

    def admit(self) -> None:
        """Let a call pass. Raises: ServiceUnavailable while the service does not answer."""
        with self._lock:
            if self._failures < FAILURES_MAX:
                return
            now = time.monotonic()
            if now < self._open_until:
                raise ServiceUnavailable(retry_after_seconds=max(1, round(self._open_until - now)))
            self._open_until = now + OPEN_SECONDS  # this call is the probe; the others go on waiting

    def answered(self) -> None:
        """Note that the service answered, be it with a refusal."""
        self._failures = 0

    def failed(self) -> None:
        """Note that no answer came."""
        with self._lock:
            self._failures += 1
            if self._failures >= FAILURES_MAX:
                self._open_until = time.monotonic() + OPEN_SECONDS


class Bulkhead:
    """Bounds the calls in flight to one service."""

    def __init__(self, in_flight_max: int = IN_FLIGHT_MAX) -> None:
        self._slots = threading.BoundedSemaphore(in_flight_max)

    @contextmanager
    def slot(self, timeout_seconds: float) -> Iterator[None]:
        """Hold a place while a call is in flight. Raises: ServiceUnavailable when none gets free in time."""
        if not self._slots.acquire(timeout=max(0.0, min(timeout_seconds, QUEUE_SECONDS_MAX))):
            raise ServiceUnavailable(retry_after_seconds=1)
        try:
            yield
        finally:
            self._slots.release()
