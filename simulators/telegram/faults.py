"""The faults that a caller of the control API can order, and which call each of them meets."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from simulators.fault_queue import FaultQueue, check_times

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
        check_times(self.times)

    def meets(self, method: str, chat_id: int | None) -> bool:
        """Whether this fault waits for such a call."""
        is_method_met = self.method is None or self.method.lower() == method.lower()
        return is_method_met and self.chat_id in (None, chat_id) and self.times != 0


class Faults(FaultQueue[Fault]):
    """The faults of calls."""

    def take(self, method: str, chat_id: int | None) -> list[Fault]:
        """Use up what meets this call: any delays before it, then at most one fault of another kind."""
        return self.use(lambda waiting: _met(waiting, method, chat_id))


def _met(waiting: list[Fault], method: str, chat_id: int | None) -> Iterator[Fault]:
    for fault in waiting:
        if fault.meets(method, chat_id):
            yield fault
            if fault.kind != "delay":
                return
