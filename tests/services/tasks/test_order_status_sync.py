"""The task that asks payment platforms for pending orders: page by page, and what its run says."""

from typing import Any

import pytest

from services.tasks.executors import BUILT_IN, Cancelled, TaskFailed, order_status_sync
from tests.services.tasks.test_reconciling_tasks import Run

LAST = {"asked": 3, "outcomes": {"settled": 2, "unpaid": 1}, "unanswered": 0, "unreachable": [], "next_cursor": None}
FIRST = {"asked": 200, "outcomes": {"settled": 1, "noted": 199}, "unanswered": 0, "unreachable": [], "next_cursor": "c"}


class Ledger:
    """Answers pages in their order, and remembers the cursors."""

    def __init__(self, *pages: dict[str, Any]) -> None:
        self.pages, self.cursors = list(pages), []

    def call(self, method: str, *, cursor: str | None, timeout: float, passport: Any) -> Any:
        assert (method, timeout, passport) == ("sync_order_statuses", 60, "passport")
        self.cursors.append(cursor)
        return self.pages.pop(0)


def test_all_pages_are_gone_through_and_summed_up() -> None:
    run, ledger = Run(), Ledger(FIRST, LAST)
    assert BUILT_IN["order_status_sync"] is order_status_sync
    assert order_status_sync(run, {"ledger": ledger}) == {
        "asked": 203,
        "outcomes": {"settled": 3, "noted": 199, "unpaid": 1},
        "unanswered": 0,
        "unreachable": [],
    }
    assert ledger.cursors == [None, "c"]
    assert run.lines == ["info: Asked for 203 pending orders: 199 noted, 3 settled, 1 unpaid."]


def test_platform_that_does_not_answer_fails_the_run_after_the_others_were_asked() -> None:
    silent = FIRST | {"unanswered": 5, "unreachable": ["alipay"]}
    with pytest.raises(TaskFailed, match="alipay") as failed:
        order_status_sync(Run(), {"ledger": Ledger(silent, LAST)})
    assert (failed.value.is_permanent, failed.value.result["asked"]) == (False, 203)


def test_cancelled_run_ends_between_two_pages() -> None:
    ledger = Ledger(FIRST, LAST)
    with pytest.raises(Cancelled):
        order_status_sync(Run(cancelled_at=1), {"ledger": ledger})
    assert len(ledger.pages) == 1


def test_page_that_had_no_time_for_a_question_ends_the_run() -> None:
    late = FIRST | {"asked": 0, "outcomes": {}}
    assert order_status_sync(Run(), {"ledger": Ledger(FIRST, late)})["asked"] == 200
