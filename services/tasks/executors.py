"""What each built-in task really does. An executor calls other services, never inside a transaction of ours.

Each call bears an idempotency key made of the run's id and the item, so that a call that is sent twice, after a lost
connection, has one effect.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from shared.contracts.channels import OrderSyncView
from shared.contracts.ledger import VerificationView
from shared.contracts.reconciliations import CheckView, DailyView, DayRunsView, MonthlyView
from shared.passport import Passport

SYNC_CALL_SECONDS = 60.0


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


def reconcile_daily(run: Run, services: Mapping[str, Service]) -> dict[str, Any]:
    """Let the ledger reconcile yesterday over all active channels, and what was expected before; check yesterday.

    Returns: `date`, `reconciliations` (the runs' ids), what they `found` and `healed`, the channels that were `busy`,
    and the daily checks that are not ok. A mismatch is what this is for, and no failure of it.
    """
    run.progress(0, 2, "matching")
    done = _reconcile_day(run, services["ledger"], None)
    run.check()
    run.progress(1, 2, "checking")
    not_ok = _checks_not_ok(run, services["ledger"], done["date"])
    run.progress(2, 2, "done")
    found, healed = (sum(item[name] for item in done["items"]) for name in ("found", "healed"))
    run.log(f"Reconciled {done['date']}: {found} mismatches, {healed} healed; {len(not_ok)} checks are not ok.")
    return {
        "date": done["date"],
        "reconciliations": [item["id"] for item in done["items"]],
        "found": found,
        "healed": healed,
        "busy": done["busy"],
        "checks_not_ok": not_ok,
    }


def reconcile_monthly(run: Run, services: Mapping[str, Service]) -> dict[str, Any]:
    """Let the ledger reconcile each day of last month once more, and say what the month came to.

    Returns: `month`, what was `found` and `healed`, the month's `figures`, and the daily checks that are not ok.
    """
    ledger = services["ledger"]
    month: MonthlyView = ledger.call("read_monthly_figures", passport=run.passport, timeout=run.seconds_left())
    days = [day["date"] for day in month["days"]]
    found = healed = 0
    not_ok: list[CheckView] = []
    for number, day in enumerate(days):
        run.check()
        run.progress(number, len(days), day)
        done = _reconcile_day(run, ledger, day)
        found += sum(item["found"] for item in done["items"])
        healed += sum(item["healed"] for item in done["items"])
        not_ok += _checks_not_ok(run, ledger, day)
    figures: MonthlyView = ledger.call(
        "read_monthly_figures", month=month["month"], passport=run.passport, timeout=run.seconds_left()
    )
    run.progress(len(days), len(days), "done")
    run.log(f"Reconciled {month['month']}: {found} mismatches, {healed} healed; {len(not_ok)} checks are not ok.")
    return {
        "month": month["month"],
        "found": found,
        "healed": healed,
        "figures": figures["items"],
        "checks_not_ok": not_ok,
    }


def _reconcile_day(run: Run, ledger: Service, date: str | None) -> DayRunsView:
    terms = {} if date is None else {"date": date}
    done: DayRunsView = ledger.call("reconcile_day", passport=run.passport, timeout=run.seconds_left(), **terms)
    for channel in done["busy"]:
        run.log(f"{channel} is being reconciled by somebody else.", level="warning")
    return done


def _checks_not_ok(run: Run, ledger: Service, date: str) -> list[CheckView]:
    view: DailyView = ledger.call("read_daily_checks", date=date, passport=run.passport, timeout=run.seconds_left())
    not_ok = [check for check in view["items"] if not check["ok"]]
    for check in not_ok:
        where = " ".join(filter(None, (check["currency"], check["channel"])))
        run.log(f"{date}: {check['name']} in {where} is off by {check['difference']}.", level="warning")
    return not_ok


def order_status_sync(run: Run, services: Mapping[str, Service]) -> dict[str, Any]:
    """Let the ledger ask payment platforms for pending orders, page by page.

    Returns: how many were `asked` for, how often each of the `outcomes` followed, how many are `unanswered`.
    Raises: TaskFailed with the same result where a platform does not answer at all.
    """
    asked = unanswered = 0
    outcomes: Counter[str] = Counter()
    unreachable: set[str] = set()
    cursor: str | None = None
    while True:
        seconds = min(run.seconds_left(), SYNC_CALL_SECONDS)
        page: OrderSyncView = services["ledger"].call(
            "sync_order_statuses", cursor=cursor, passport=run.passport, timeout=seconds
        )
        asked, unanswered = asked + page["asked"], unanswered + page["unanswered"]
        outcomes.update(page["outcomes"])
        unreachable.update(page["unreachable"])
        run.progress(asked, None, f"{asked} orders asked for")
        run.check()
        cursor = page["next_cursor"]
        if cursor is None or not page["asked"]:  # a page without a question is one that had no time for any
            break
    result = {"asked": asked, "outcomes": dict(outcomes), "unanswered": unanswered, "unreachable": sorted(unreachable)}
    followed = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())) or "none followed"
    run.log(f"Asked for {asked} pending orders: {followed}.")
    if unreachable:
        raise TaskFailed(f"No answer from: {', '.join(sorted(unreachable))}.", result=result, is_permanent=False)
    return result


BUILT_IN: dict[str, Executor] = {
    "balance_check": balance_check,
    "reconcile_daily": reconcile_daily,
    "reconcile_monthly": reconcile_monthly,
    "order_status_sync": order_status_sync,
}
