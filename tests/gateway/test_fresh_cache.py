"""Values are fetched by one caller at a time, and nobody waits longer than they have."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.fresh_cache import FreshCache
from shared.errors import DeadlineExceeded, ServiceError, Unavailable


def test_many_callers_fetch_once() -> None:
    cache = FreshCache[int](fresh_seconds=5, grace_seconds=5)
    fetched: list[float] = []

    def fetch(_stands_by: bool, seconds_left: float) -> int:
        fetched.append(seconds_left)
        time.sleep(0.1)
        return 7

    with ThreadPoolExecutor(16) as pool:
        values = list(pool.map(lambda _: cache.get("key", fetch, timeout_seconds=5), range(16)))

    assert values == [7] * 16
    assert len(fetched) == 1


def test_waiting_for_another_counts_against_ones_own_time() -> None:
    cache = FreshCache[int](fresh_seconds=5, grace_seconds=5)
    release = threading.Event()
    allowed: list[float] = []

    def hang(_stands_by: bool, seconds_left: float) -> int:
        allowed.append(seconds_left)
        release.wait(seconds_left)
        raise Unavailable

    def ask() -> float:
        started = time.monotonic()
        with pytest.raises(ServiceError):
            cache.get("key", hang, timeout_seconds=0.5)
        return time.monotonic() - started

    with ThreadPoolExecutor(8) as pool:
        took = [future.result() for future in [pool.submit(ask) for _ in range(8)]]

    assert max(took) < 0.9
    assert max(allowed) <= 0.5


def test_caller_who_has_no_time_left_does_not_fetch_for_long() -> None:
    cache = FreshCache[int](fresh_seconds=5, grace_seconds=5)
    seen: list[float] = []
    cache.get("key", lambda _, seconds_left: seen.append(seconds_left) or 1, timeout_seconds=0)
    assert seen == [0.0]
    cache._locks[hash("other") % len(cache._locks)].acquire()
    with pytest.raises(DeadlineExceeded):
        cache.get("other", lambda *_: 1, timeout_seconds=0.05)


def test_stale_value_is_not_asked_about_by_each_caller_while_the_source_is_away() -> None:
    cache = FreshCache[int](fresh_seconds=0.01, grace_seconds=60)
    asked: list[bool] = []
    cache.get("key", lambda *_: 7, timeout_seconds=1)
    time.sleep(0.02)

    def away(stands_by: bool, _seconds_left: float) -> int:
        asked.append(stands_by)
        raise Unavailable

    assert [cache.get("key", away, timeout_seconds=1) for _ in range(10)] == [7] * 10
    assert asked == [True]


def test_forgotten_value_is_fetched_again() -> None:
    cache = FreshCache[int](fresh_seconds=60, grace_seconds=60)
    numbers = iter(range(5))
    assert cache.get("key", lambda *_: next(numbers), timeout_seconds=1) == 0
    assert cache.get("key", lambda *_: next(numbers), timeout_seconds=1) == 0
    cache.forget("key")
    assert cache.get("key", lambda *_: next(numbers), timeout_seconds=1) == 1
