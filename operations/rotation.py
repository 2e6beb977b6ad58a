"""Change keys while everything runs: every process knows a new key before the first one uses it.

Each function can be called again after it was interrupted: it goes on where it was.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from operations.calls import Caller
from operations.errors import OperationFailed
from operations.keys import CardKeyRing, ChannelKeyRing, KeyRing
from operations.processes import instances
from operations.system import System


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """What is sealed under a ring of keys, in which service, and how that is asked and told about it."""

    kind: str
    of_what: str
    ring: type[KeyRing]
    service: str
    usage_call: str
    telling_call: str


CARDS: Final = Sealed(
    kind="cards",
    of_what="card numbers",
    ring=CardKeyRing,
    service="cards",
    usage_call="get_key_usage",
    telling_call="tell_keys_changed",
)
CHANNELS: Final = Sealed(
    kind="channels",
    of_what="channels' secrets",
    ring=ChannelKeyRing,
    service="ledger",
    usage_call="get_channel_key_usage",
    telling_call="tell_channel_keys_changed",
)


def change_keys(system: System, sealed: Sealed, *, reason: str) -> None:
    """Make new keys, let every instance know them, then use them; retired ones are left behind.

    Raises: OperationFailed while something is still under keys that were left behind before.
    """
    ring = sealed.ring(system.home)
    if ring.retired:
        _require_unused(system, sealed, ring)
    ring.add()
    with _never_without(system, sealed.service):
        system.restart(sealed.service)  # knows it
        ring.use_upcoming()
        system.restart(sealed.service)  # uses it, and begins to move what is under the old one
    _tell(system, sealed, ring, reason)


def drop_old_keys(system: System, sealed: Sealed, *, reason: str) -> None:
    """Forget the keys that were left behind.

    Raises: OperationFailed when there are none, or something is still under one of them.
    """
    ring = sealed.ring(system.home)
    if not ring.retired:
        raise OperationFailed(f"There are no old keys of {sealed.of_what}.")
    _require_unused(system, sealed, ring)
    ring.drop_retired()
    with _never_without(system, sealed.service):
        system.restart(sealed.service)
    _tell(system, sealed, ring, reason)


def key_rows(system: System, sealed: Sealed) -> list[tuple[str, str, str, str]]:
    """Return the keys as rows: kind, id, state, how many are under it."""
    ring = sealed.ring(system.home)
    counts = _usage(system, sealed)
    states = dict.fromkeys(ring.retired, "old") | {ring.current: "current"}
    if ring.upcoming:
        states[ring.upcoming] = "new"
    return [(sealed.kind, key_id, state, f"{counts.get(key_id, 0)} {sealed.kind}") for key_id, state in states.items()]


def _require_unused(system: System, sealed: Sealed, ring: KeyRing) -> None:
    counts = _usage(system, sealed)
    if left := sum(counts.get(key_id, 0) for key_id in ring.retired):
        raise OperationFailed(
            f"{left} {sealed.kind} are still under the old keys, and are being moved."
            " ./countinghouse rotate-keys status shows how far it is."
        )


def _usage(system: System, sealed: Sealed) -> dict[str, int]:
    with Caller(system) as caller:
        usage: dict[str, int] = caller.call(sealed.service, sealed.usage_call)[sealed.kind]
    return usage


def _tell(system: System, sealed: Sealed, ring: KeyRing, reason: str) -> None:
    with Caller(system) as caller:
        caller.call(sealed.service, sealed.telling_call, current=ring.current, retired=ring.retired, reason=reason)


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
