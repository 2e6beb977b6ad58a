"""The faults that a caller of the control API can order, and what of the platform's doing each of them meets."""

import threading
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

FaultKind = Literal[
    "delay", "server_error", "drop", "redirect", "bad_signature", "wrong_amount", "duplicate", "out_of_order"
]  # fmt: skip
Target = Literal["query", "callback", "statement"]
FAULT_KINDS: tuple[str, ...] = get_args(FaultKind)
TARGETS: tuple[str, ...] = get_args(Target)
# A duplicate is the same message several times at once; out of order, an older word comes after the present one.
_OF_CALLBACKS = ("duplicate", "out_of_order")


@dataclass(kw_only=True)
class Fault:
    """One ordered fault.

    times: how many questions, callbacks or downloads it meets; None means every one until it is cleared.
    account: None means any.
    copies: how often a `duplicate` is delivered.
    """

    kind: FaultKind
    target: Target
    times: int | None = 1
    account: str | None = None
    delay_seconds: float = 1.0
    copies: int = 20

    def __post_init__(self) -> None:
        if self.kind not in FAULT_KINDS or self.target not in TARGETS:
            raise ValueError(f"kind is one of {', '.join(FAULT_KINDS)}, target one of {', '.join(TARGETS)}")
        if self.kind in _OF_CALLBACKS and self.target != "callback":
            raise ValueError(f"{self.kind} is a fault of callbacks")
        if self.times is not None and self.times < 1:
            raise ValueError("times is at least 1, or null")


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
        """Return the faults that still wait."""
        with self._lock:
            return [asdict(fault) for fault in self._faults]

    def take(self, target: Target, account: str) -> dict[str, Fault]:
        """Use up what meets this: one fault of each kind, by its kind."""
        taken: dict[str, Fault] = {}
        with self._lock:
            for fault in self._faults:
                if fault.target == target and fault.account in (None, account) and fault.kind not in taken:
                    taken[fault.kind] = fault
                    if fault.times is not None:
                        fault.times -= 1
            self._faults = [fault for fault in self._faults if fault.times != 0]
        return taken
