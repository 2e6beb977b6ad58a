"""Argon2 for passwords: in a native thread, so that the service's loop goes on, and at most two at once.

Whoever waits for a turn holds one of the service's workers, so the line is short: a crowd at the door must not keep
the sessions of everyone else from being checked. Source: RELIABILITY.md R9, R10; OWASP Password Storage.
"""

import threading
from collections.abc import Callable
from functools import cache
from typing import Final, TypeVar, cast

import argon2
import eventlet.patcher
import eventlet.tpool

from shared.contracts.users import SignInBusy

AT_ONCE_MAX: Final = 2
WAITING_MAX: Final = 14
WAIT_SECONDS_MAX: Final = 4.0

Result = TypeVar("Result")

# OWASP's recommended minimum: 21 ms of one core, where the library's default takes 170 ms of CPU. Passwords here have
# twelve characters or more and names lock after a few failures, and a crowd at the door must be let in within seconds.
_hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
# These locks are green in a service's process, which is monkey-patched before it imports anything.
_places = threading.BoundedSemaphore(AT_ONCE_MAX + WAITING_MAX)
_turns = threading.BoundedSemaphore(AT_ONCE_MAX)


def _in_turn(work: Callable[[], Result]) -> Result:
    if not _places.acquire(blocking=False):
        raise SignInBusy(retry_after_seconds=2)
    try:
        if not _turns.acquire(timeout=WAIT_SECONDS_MAX):
            raise SignInBusy(retry_after_seconds=2)
        try:
            return _off_the_loop(work)
        finally:
            _turns.release()
    finally:
        _places.release()


def _off_the_loop(work: Callable[[], Result]) -> Result:
    if eventlet.patcher.is_monkey_patched("thread"):
        return cast(Result, eventlet.tpool.execute(work))
    return work()


def hash_password(password: str) -> str:
    """Return the Argon2id hash of a password, with its salt and parameters. Raises: SignInBusy."""
    return _in_turn(lambda: _hasher.hash(password))


def fits(password: str, password_hash: str | None) -> bool:
    """Return whether a password is the one of a hash, in the same time whether there is a hash or not.

    password_hash: None when nobody has this name; the password is then compared with one that nobody knows.
    Raises: SignInBusy.
    """

    def compare() -> bool:
        try:
            return _hasher.verify(password_hash or _nobodys_hash(), password) and password_hash is not None
        except argon2.exceptions.VerifyMismatchError:
            return False

    return _in_turn(compare)


def is_outdated(password_hash: str) -> bool:
    """Return whether a hash was made with other parameters than today's."""
    return _hasher.check_needs_rehash(password_hash)


@cache
def _nobodys_hash() -> str:
    return _hasher.hash("the password of nobody")


_nobodys_hash()  # made now, so that the first wrong name is not told by its slowness
