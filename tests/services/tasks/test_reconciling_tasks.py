"""The tasks that reconcile: what they ask of the ledger, and what their runs say."""

from types import SimpleNamespace
from typing import Any

import pytest

from services.tasks.executors import Cancelled, reconcile_daily, reconcile_monthly

CHECK = {"name": "recharge_total", "currency": "CNY", "channel": "alipay", "difference": "1.00", "ok": False}


class Ledger:
    """Answers as a ledger of a two-day month does, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def call(self, method: str, **arguments: Any) -> Any:
        assert arguments.pop("timeout") == 60
        assert arguments.pop("passport") == "passport"
        self.asked.append((method, arguments))
        date = arguments.get("date", "2026-11-02")
        return {
            "reconcile_day": {
                "date": date,
                "items": [{"id": f"rec_{date}", "found": 2, "healed": 1}, {"id": "rec_other", "found": 0, "healed": 0}],
                "busy": ["wechat"],
            },
            "read_daily_checks": {"items": [CHECK, CHECK | {"ok": True}]},
            "read_monthly_figures": {
                "month": "2026-11",
                "items": ["figures"],
                "days": [{"date": "2026-11-01"}, {"date": "2026-11-02"}],
            },
        }[method]


class Run:
    """A run that notes what it is told; cancelled at the check that `cancelled_at` counts."""

    passport = "passport"
    is_by_hand = False

    def __init__(self, cancelled_at: int | None = None) -> None:
        self.lines: list[str] = []
        self.steps: list[tuple[int, int]] = []
        self.checks, self.cancelled_at = 0, cancelled_at

    def seconds_left(self) -> float:
        return 60

    def log(self, message: str, *, level: str = "info") -> None:
        self.lines.append(f"{level}: {message}")

    def progress(self, done: int, total: int, message: str = "") -> None:
        self.steps.append((done, total))

    def check(self) -> None:
        self.checks += 1
        if self.checks == self.cancelled_at:
            raise Cancelled


def carry_out(executor: Any, run: Run) -> SimpleNamespace:
    ledger = Ledger()
    return SimpleNamespace(result=executor(run, {"ledger": ledger}), asked=ledger.asked)


def test_daily_reconciles_and_checks_the_day_that_the_ledger_names() -> None:
    run = Run()
    done = carry_out(reconcile_daily, run)
    assert done.asked == [("reconcile_day", {}), ("read_daily_checks", {"date": "2026-11-02"})]
    assert done.result == {
        "date": "2026-11-02",
        "reconciliations": ["rec_2026-11-02", "rec_other"],
        "found": 2,
        "healed": 1,
        "busy": ["wechat"],
        "checks_not_ok": [CHECK],
    }
    assert run.steps[-1] == (2, 2)
    assert run.lines == [
        "warning: wechat is being reconciled by somebody else.",
        "warning: 2026-11-02: recharge_total in CNY alipay is off by 1.00.",
        "info: Reconciled 2026-11-02: 2 mismatches, 1 healed; 1 checks are not ok.",
    ]


def test_monthly_goes_through_all_days_and_sums_up() -> None:
    run = Run()
    done = carry_out(reconcile_monthly, run)
    assert [arguments.get("date") for method, arguments in done.asked if method == "reconcile_day"] == [
        "2026-11-01",
        "2026-11-02",
    ]
    assert done.asked[-1] == ("read_monthly_figures", {"month": "2026-11"})
    assert (done.result["month"], done.result["found"], done.result["healed"]) == ("2026-11", 4, 2)
    assert (done.result["figures"], len(done.result["checks_not_ok"])) == (["figures"], 2)
    assert run.steps == [(0, 2), (1, 2), (2, 2)]


def test_a_cancelled_month_ends_between_two_days() -> None:
    ledger = Ledger()
    with pytest.raises(Cancelled):
        reconcile_monthly(Run(cancelled_at=2), {"ledger": ledger})
    assert [method for method, _ in ledger.asked].count("reconcile_day") == 1
