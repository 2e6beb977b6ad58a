"""The faults that a caller of the control API can order, and what of the platform's doing each of them meets."""

from dataclasses import dataclass
from typing import Literal, get_args

from simulators.fault_queue import FaultQueue, check_times

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
        check_times(self.times)


class Faults(FaultQueue[Fault]):
    """The faults of questions, callbacks and downloads."""

    def take(self, target: Target, account: str) -> dict[str, Fault]:
        """Use up what meets this: one fault of each kind, by its kind."""
        return {fault.kind: fault for fault in self.use(lambda waiting: _met(waiting, target, account))}


def _met(waiting: list[Fault], target: Target, account: str) -> list[Fault]:
    """Return the first fault of each kind that waits for this."""
    met: dict[str, Fault] = {}
    for fault in waiting:
        if fault.target == target and fault.account in (None, account):
            met.setdefault(fault.kind, fault)
    return list(met.values())
