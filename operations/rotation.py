"""Change keys while everything runs: every process knows a new key before the first one uses it.

Each function can be called again after it was interrupted: it goes on where it was.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from operations.calls import Caller
from operations.errors import OperationFailed
from operations.keys import CardKeyRing
from operations.processes import instances
from operations.system import System

CARDS = "cards"


def rotate_card_keys(system: System, *, reason: str) -> None:
    """Make new keys of card numbers, let every instance know them, then use them; retired ones are left behind.

    Raises: OperationFailed while numbers are still under keys that were left behind before.
    """
    ring = CardKeyRing(system.home)
    if ring.retired:
        _require_unused(system, ring)
    ring.add_pair()
    with _never_without(system, CARDS):
        system.restart(CARDS)  # knows it
        ring.use_upcoming()
        system.restart(CARDS)  # uses it, and begins to move what is under the old one
    _tell(system, ring, reason)


def drop_old_card_keys(system: System, *, reason: str) -> None:
    """Forget the keys of card numbers that were left behind.

    Raises: OperationFailed when there are none, or a number is still under one of them.
    """
    ring = CardKeyRing(system.home)
    if not ring.retired:
        raise OperationFailed("There are no old keys of card numbers.")
    _require_unused(system, ring)
    ring.drop_retired()
    with _never_without(system, CARDS):
        system.restart(CARDS)
    _tell(system, ring, reason)


def card_key_rows(system: System) -> list[tuple[str, str, str, str]]:
    """Return the keys of card numbers as rows: kind, id, state, how many cards are under it."""
    ring = CardKeyRing(system.home)
    cards = _usage(system)
    states = dict.fromkeys(ring.retired, "old") | {ring.current: "current"}
    if ring.upcoming:
        states[ring.upcoming] = "new"
    return [("cards", key_id, state, f"{cards.get(key_id, 0)} cards") for key_id, state in states.items()]


def _require_unused(system: System, ring: CardKeyRing) -> None:
    cards = _usage(system)
    if left := sum(cards.get(key_id, 0) for key_id in ring.retired):
        raise OperationFailed(
            f"{left} card numbers are still under the old keys, and are being moved."
            " ./countinghouse rotate-keys status shows how far it is."
        )


def _usage(system: System) -> dict[str, int]:
    with Caller(system) as caller:
        usage: dict[str, int] = caller.call(CARDS, "get_key_usage")["cards"]
    return usage


def _tell(system: System, ring: CardKeyRing, reason: str) -> None:
    with Caller(system) as caller:
        caller.call(CARDS, "tell_keys_changed", current=ring.current, retired=ring.retired, reason=reason)


@contextmanager
def _never_without(system: System, service: str) -> Iterator[None]:
    """Have a second instance of a service that has one, so that somebody serves while each is restarted."""
    is_alone = instances(system.home, service) == 1
    if is_alone:
        system.scale(service, 2)
    try:
        yield
    finally:
        if is_alone:
            system.scale(service, 1)
