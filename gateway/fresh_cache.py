"""A cache whose values are fetched again after a few seconds, by one caller at a time."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from shared.errors import DeadlineExceeded, Unavailable

Value = TypeVar("Value")
Fetch = Callable[[bool, float], Value]

ENTRIES_MAX = 20_000
RETRY_SECONDS = 1.0
_STRIPES = 64


class FreshCache(Generic[Value]):
    """Values that are at most `fresh_seconds` old, or `grace_seconds` while their source does not answer."""

    def __init__(self, *, fresh_seconds: float, grace_seconds: float) -> None:
        self._fresh_seconds = fresh_seconds
        self._grace_seconds = grace_seconds
        self._entries: OrderedDict[Hashable, tuple[Value, float, float]] = OrderedDict()
        self._locks = [threading.Lock() for _ in range(_STRIPES)]

    def get(self, key: Hashable, fetch: Fetch[Value], *, timeout_seconds: float) -> Value:
        """Return the value of a key, fetched when it is too old.

        fetch: is told whether an older value stands by, so that it may give up sooner, and the seconds it may take.
        Raises: whatever fetch raises; DeadlineExceeded when another caller's fetch takes too long.
        """
        give_up_at = time.monotonic() + timeout_seconds
        entry = self._entries.get(key)
        if entry is not None and time.monotonic() < entry[2]:
            return entry[0]
        lock = self._locks[hash(key) % _STRIPES]
        if not lock.acquire(timeout=max(0.0, timeout_seconds)):
            raise DeadlineExceeded
        try:
            return self._fetched(key, fetch, give_up_at)
        finally:
            lock.release()

    def forget(self, key: Hashable) -> None:
        """Make the next `get` fetch."""
        self._entries.pop(key, None)

    def expire(self) -> None:
        """Make the next `get` of each key fetch; the old values still stand by while their source is away."""
        for key, (value, asked_at, _) in list(self._entries.items()):
            self._entries[key] = (value, asked_at, 0.0)

    def _fetched(self, key: Hashable, fetch: Fetch[Value], give_up_at: float) -> Value:
        entry = self._entries.get(key)
        now = time.monotonic()
        if entry is not None and now < entry[2]:
            return entry[0]
        stands_by = entry is not None and now - entry[1] < self._grace_seconds
        try:
            value = fetch(stands_by, max(0.0, give_up_at - now))
        except Unavailable:
            if entry is None or not stands_by:
                raise
            # The source is away: keep to what we knew, and do not let each request find that out for itself.
            self._entries[key] = (entry[0], entry[1], time.monotonic() + RETRY_SECONDS)
            return entry[0]
        # Age counts from before the question, since the answer may have been true only then.
        self._entries[key] = (value, now, now + self._fresh_seconds)
        self._entries.move_to_end(key)
        while len(self._entries) > ENTRIES_MAX:
            self._entries.popitem(last=False)
        return value
