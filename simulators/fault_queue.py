"""Faults that wait for what they are to meet, in the order in which they were asked for."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any, ClassVar, Generic, Protocol, TypeVar


class Ordered(Protocol):
    """A fault that was ordered: a dataclass. `times`: how often it is still met; None means until it is cleared."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    times: int | None


F = TypeVar("F", bound=Ordered)


class FaultQueue(Generic[F]):
    """The faults in force."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[F] = []

    def order(self, fault: F) -> None:
        """Put a fault behind those already waiting."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._faults.clear()

    def as_json(self) -> list[dict[str, Any]]:
        """Return the faults that still wait."""
        with self._lock:
            return [asdict(fault) for fault in self._faults]

    def use(self, choose: Callable[[list[F]], Iterable[F]]) -> list[F]:
        """Use up, once each, the faults that are chosen of those that wait. Returns: them."""
        with self._lock:
            used = list(choose(self._faults))
            for fault in used:
                if fault.times is not None:
                    fault.times -= 1
            self._faults = [fault for fault in self._faults if fault.times != 0]
        return used


def check_times(times: int | None) -> None:
    """Raises: ValueError for a fault that would meet nothing."""
    if times is not None and times < 1:
        raise ValueError("times is at least 1, or null")
