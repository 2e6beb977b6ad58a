"""The faults that a caller of the control API can order, and which call each of them meets."""

import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

FaultKind = Literal[
    "too_many_requests",
    "server_error",
    "bad_gateway",
    "bot_was_kicked",
    "chat_not_found",
    "migrated",
    "delay",
    "drop_before_delivery",
    "drop_after_delivery",
]
FAULT_KINDS: tuple[str, ...] = get_args(FaultKind)


@dataclass(kw_only=True)
class Fault:
    """One ordered fault.

    times: how many calls it meets; None means every call until it is cleared.
    method, chat_id: None means any.
    """

    kind: FaultKind
    times: int | None = 1
    method: str | None = "sendMessage"
    chat_id: int | None = None
    retry_after: int = 1
    migrate_to_chat_id: int | None = None
    delay_seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in FAULT_KINDS:
            raise ValueError(f"kind is one of {', '.join(FAULT_KINDS)}")
        if self.kind == "migrated" and self.migrate_to_chat_id is None:
            raise ValueError("migrated needs migrate_to_chat_id")
        if self.times is not None and self.times < 1:
            raise ValueError("times is at least 1, or null")

    def meets(self, method: str, chat_id: int | None) -> bool:
        """Whether this fault waits for such a call."""
        is_method_met = self.method is None or self.method.lower() == method.lower()
        return is_method_met and self.chat_id in (None, chat_id) and self.times != 0


class Faults:
    """The faults in force, in the order they were asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def order(self, fault: Fault) -> None:
        """Put a fault behind those already waiting."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._faults.clear()

    def as_json(self) -> list[dict[str, Any]]:
        """Answer the faults that still wait for a call."""
        with self._lock:
            return [asdict(fault) for fault in self._faults]

    def take(self, method: str, chat_id: int | None) -> Iterator[Fault]:
        """Use up what meets this call: any delays before it, then at most one fault of another kind."""
        with self._lock:
            taken = list(self._taken(method, chat_id))
            self._faults = [fault for fault in self._faults if fault.times != 0]
        yield from taken

    def _taken(self, method: str, chat_id: int | None) -> Iterator[Fault]:
        for fault in self._faults:
            if not fault.meets(method, chat_id):
                continue
            if fault.times is not None:
                fault.times -= 1
            yield fault
            if fault.kind != "delay":
                return
