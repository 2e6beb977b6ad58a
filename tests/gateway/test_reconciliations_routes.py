"""The routes of reconciliation: what reaches the ledger, what comes back, who may."""

from typing import Any

import pytest

from shared.contracts.reconciliations import ReconciliationNotFound, ReconciliationRunning

RUN = {
    "id": "rec_1",
    "channel": "alipay",
    "date": "2026-11-20",
    "timezone": "Asia/Shanghai",
    "records": 10,
    "orders": 9,
    "matched": 8,
    "expected": 1,
    "found": 1,
    "healed": 0,
    "previous_id": None,
    "actor_id": "usr_bob",
    "actor_name": "bob",
    "started_at": "2026-11-21T08:00:00.000000Z",
    "finished_at": "2026-11-21T08:00:01.000000Z",
}
COMPARED = {
    "change": "new",
    "mismatch_id": "mis_1",
    "kind": "amount_mismatch",
    "status": "open",
    "order_no": "P-1",
    "upstream_ref": "U-1",
    "merchant_id": "mer_aurora",
    "currency": "CNY",
    "difference": "1.00",
}
BODY = {"channel": "alipay", "date": "2026-11-20"}
BASE = "/api/v1/reconciliations"


def test_a_day_is_reconciled_as_the_body_says(gateway: Any, services: Any) -> None:
    services.answer("ledger", "create_reconciliation", RUN)
    answer = gateway.bob.post(BASE, json=BODY, headers={"Idempotency-Key": "k-1"})
    assert (answer.status_code, answer.json) == (201, RUN)
    [call] = services.calls_of("ledger", "create_reconciliation")
    assert (call.arguments, call.idempotency_key) == (BODY, "k-1")


@pytest.mark.parametrize("wrong", [{"date": "2026-13-01"}, {"date": None}, {"channel": ""}, {"colour": "red"}])
def test_wrong_body_is_refused_by_field(gateway: Any, wrong: dict[str, Any]) -> None:
    answer = gateway.bob.post(BASE, json=BODY | wrong)
    assert (answer.status_code, list(answer.json["errors"])) == (422, list(wrong))


def test_runs_are_listed_and_shown(gateway: Any, services: Any) -> None:
    services.answer("ledger", "list_reconciliations", {"items": [RUN], "next_cursor": None})
    assert gateway.dora.get(BASE, query_string=BODY).json == {"items": [RUN], "next_cursor": None}
    [call] = services.calls_of("ledger", "list_reconciliations")
    assert call.arguments == BODY | {"limit": 50, "cursor": None}
    detail = RUN | {"kinds": [{"kind": "amount_mismatch", "count": 2, "open": 1}]}
    services.answer("ledger", "get_reconciliation", detail)
    assert gateway.dora.get(f"{BASE}/rec_1").json == detail


def test_runs_are_compared(gateway: Any, services: Any) -> None:
    comparison = {
        "id": "rec_2", "with_id": "rec_1", "new": 1, "gone": 0, "still": 3, "items": [COMPARED], "next_cursor": None,
    }  # fmt: skip
    services.answer("ledger", "compare_reconciliations", comparison)
    answer = gateway.dora.get(f"{BASE}/rec_2/compare", query_string={"with": "rec_1", "change": "new"})
    assert answer.json == comparison
    [call] = services.calls_of("ledger", "compare_reconciliations")
    assert call.arguments == {
        "reconciliation_id": "rec_2", "with_id": "rec_1", "change": "new", "limit": 50, "cursor": None,
    }  # fmt: skip


def test_refusals_are_problems(gateway: Any, services: Any) -> None:
    services.answer("ledger", "create_reconciliation", ReconciliationRunning(retry_after_seconds=5))
    answer = gateway.bob.post(BASE, json=BODY)
    assert (answer.status_code, answer.json["code"]) == (409, "reconciliation_running")
    services.answer("ledger", "get_reconciliation", ReconciliationNotFound())
    assert gateway.bob.get(f"{BASE}/rec_9").status_code == 404


def test_to_reconcile_needs_operate(gateway: Any, services: Any) -> None:
    assert gateway.dora.post(BASE, json=BODY).status_code == 403
    assert services.calls_of("ledger", "create_reconciliation") == []
