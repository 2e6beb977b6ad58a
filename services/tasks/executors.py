"""What each built-in task really does. An executor calls other services, never inside a transaction of ours.

Each call bears an idempotency key made of the run's id and the item, so that a call that is sent twice, after a lost
connection, has one effect.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from shared.contracts.ledger import VerificationView
from shared.passport import Passport


class TaskFailed(Exception):
    """The work was done, and found what must not be. `is_permanent`: trying again would find the same."""

    def __init__(self, message: str, *, result: dict[str, Any], is_permanent: bool) -> None:
        super().__init__(message)
        self.result = result
        self.is_permanent = is_permanent


class Cancelled(Exception):
    """Somebody asked for the run's end, and the step between two calls has come."""


class Service(Protocol):
    """Another service, as `shared.rpc.entrypoints.RpcClient` gives it."""

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the service and return its result."""


class Run(Protocol):
    """What an executor sees of its run."""

    passport: Passport
    is_by_hand: bool  # somebody asked for it, and did not wait for its time

    def seconds_left(self) -> float:
        """Return how long the task may still take."""

    def key_of(self, item: str) -> str:
        """Return the idempotency key of one side effect of this run."""

    def log(self, message: str, *, level: str = "info") -> None:
        """Write a line into the run's log."""

    def progress(self, done: int, total: int | None, message: str = "") -> None:
        """Say how far the run is."""

    def check(self) -> None:
        """End here if the run was cancelled or taken away. Raises: Cancelled, LeaseLost."""


Executor = Callable[[Run, Mapping[str, Service]], dict[str, Any]]


def balance_check(run: Run, services: Mapping[str, Service]) -> dict[str, Any]:
    """Let the ledger prove every account: by hand from its first entry, else as the ledger finds it due.

    Returns: `mode`, `accounts_checked`, `entries_checked` and `broken`, which is empty.
    Raises: TaskFailed with the same result when something is broken.
    """
    run.log("The ledger proves every account.")
    run.progress(0, 1, "the ledger proves every account")
    found: VerificationView = services["ledger"].call(
        "verify_ledger",
        mode="full" if run.is_by_hand else "due",
        passport=run.passport,
        timeout=run.seconds_left(),
        idempotency_key=run.key_of("verify_ledger"),
    )
    run.check()
    result = {
        "mode": found["mode"],
        "accounts_checked": found["accounts"],
        "entries_checked": found["entries"],
        "broken": found["faults"],
    }
    run.progress(1, 1, "done")
    run.log(f"Checked {found['accounts']} accounts with {found['entries']} entries.")
    for fault in found["faults"]:
        run.log(f"{fault['kind']}: {fault['detail']}", level="error")
    if not found["ok"]:
        raise TaskFailed(f"Faults found in the ledger: {found['fault_count']}.", result=result, is_permanent=True)
    return result


BUILT_IN: dict[str, Executor] = {"balance_check": balance_check}
