"""The routes of mismatches and corrections: shapes, permissions, and what of a request reaches the service."""

from typing import Any

import pytest

from shared.contracts.mismatches import FourEyes, MismatchNotFound, ProposalChanged
from tests.gateway.people import AURORA
from tests.gateway.test_ledger_routes import KEY

MISMATCH = {
    "id": "mis_1",
    "kind": "amount_mismatch",
    "status": "open",
    "resolution": None,
    "channel": "alipay",
    "date": "2026-11-22",
    "merchant_id": AURORA,
    "order_no": "P-1",
    "upstream_ref": "up-1",
    "currency": "CNY",
    "difference": "-1.00",
    "differing": [{"field": "amount", "local": "10.00", "upstream": "9.00"}],
    "version": 1,
    "opened_at": "2026-11-23T08:00:00.000000Z",
    "updated_at": "2026-11-23T08:00:00.000000Z",
}
CONTENT = {
    "content_sha256": "a" * 64,
    "order_no": "P-1",
    "is_new_order": False,
    "order": [{"field": "amount", "before": "10.00", "after": "9.00"}],
    "records": [{"upstream_ref": "up-1", "changes": [{"field": "is_void", "before": "false", "after": "true"}]}],
    "new_record": None,
    "entries": [
        {
            "entry_id": None,
            "merchant_id": AURORA,
            "user_id": "user-1",
            "type": 326,
            "type_name": "Admin Adjust",
            "amount": "-1.00",
            "currency": "CNY",
            "balance": "99.00",
            "bucket": "recharge",
            "date": "2026-11-22",
        }
    ],
}
CORRECTION = CONTENT | {
    "id": "cor_1",
    "mismatch_id": "mis_1",
    "merchant_id": AURORA,
    "to": "upstream",
    "status": "proposed",
    "reason": "Asked.",
    "reversal_of": None,
    "proposed_by": "usr_alice",
    "proposed_by_name": "alice",
    "decided_by": None,
    "decided_by_name": None,
    "decided_reason": None,
    "created_at": "2026-11-23T08:00:00.000000Z",
    "decided_at": None,
    "applied_at": None,
}
DETAIL = MISMATCH | {
    "local": {"status": "settled", "amount": "10.00", "currency": "CNY"},
    "upstream": {"status": "success", "amount": "9.00", "currency": "CNY"},
    "history": [
        {
            "act": "find",
            "status_before": None,
            "status_after": "open",
            "reason": None,
            "correction_id": None,
            "actor_id": "system",
            "actor_name": "system",
            "actor_type": "system",
            "request_id": "req_1",
            "time": "2026-11-23T08:00:00.000000Z",
        }
    ],
    "corrections": [CORRECTION],
}
PREVIEW = CONTENT | {"needs_approval": True, "refusal": None}
WHY = {"reason": "Asked."}
ACTS = [
    ("reconcile", WHY, "reconcile_mismatch"),
    ("ignore", WHY, "ignore_mismatch"),
    ("reopen", WHY, "reopen_mismatch"),
    ("correct", WHY | {"to": "local"}, "correct_mismatch"),
    (
        "correct",
        WHY | {"to": "upstream", "merchant_id": AURORA, "user_id": "u", "kind": "recharge"},
        "correct_mismatch",
    ),
    ("approve", {}, "approve_correction"),
    ("approve", {"content_sha256": "b" * 64, "reason": "Checked."}, "approve_correction"),
    ("approve", {"content_sha256": "ab4111111111111111" + "c" * 46}, "approve_correction"),
    ("reject", WHY, "reject_correction"),
]


@pytest.mark.parametrize(("verb", "body", "method"), ACTS)
def test_acts_reach_the_ledger_with_what_they_say(
    gateway: Any, services: Any, verb: str, body: dict[str, Any], method: str
) -> None:
    services.answer("ledger", method, DETAIL)
    answer = gateway.alice.post(f"/api/v1/mismatches/mis_1/{verb}", json=body, headers=KEY)
    assert (answer.status_code, answer.json) == (200, DETAIL)
    [call] = services.calls_of("ledger", method)
    assert (call.arguments, call.idempotency_key) == ({"mismatch_id": "mis_1"} | body, "k-1")


def test_dry_run_asks_for_a_preview_and_corrects_nothing(gateway: Any, services: Any) -> None:
    services.answer("ledger", "preview_correction", PREVIEW)
    services.answer("ledger", "get_mismatch", DETAIL)
    body = WHY | {"to": "upstream"}
    answer = gateway.alice.post("/api/v1/mismatches/mis_1/correct?dry_run=true", json=body, headers=KEY)
    assert (answer.status_code, answer.json) == (200, DETAIL | {"preview": PREVIEW})
    assert services.calls_of("ledger", "correct_mismatch") == []
    [call] = services.calls_of("ledger", "preview_correction")
    assert call.arguments == {"mismatch_id": "mis_1"} | body


def test_filters_reach_the_ledger_and_both_lists_come_as_csv(gateway: Any, services: Any) -> None:
    services.answer("ledger", "list_mismatches", {"items": [MISMATCH], "next_cursor": None})
    query = {
        "kind": ["amount_mismatch", "missing_local"], "status": ["open"], "channel": "alipay", "date": "2026-11-22",
        "merchant_id": AURORA, "order_no": "P-1", "upstream_ref": "up-1", "currency": "CNY", "min_difference": "1.00",
        "from": "2026-11-23T00:00:00Z",
    }  # fmt: skip
    answer = gateway.dora.get("/api/v1/mismatches", query_string=query)
    assert answer.json == {"items": [MISMATCH], "next_cursor": None}
    [call] = services.calls_of("ledger", "list_mismatches")
    assert {name: value for name, value in query.items() if name != "from"}.items() <= call.arguments.items()
    assert call.arguments["from_time"] == "2026-11-23T00:00:00Z"
    csv = gateway.dora.get("/api/v1/mismatches", headers={"Accept": "text/csv"}).text
    assert csv.splitlines()[0].lstrip("\ufeff").split(",") == list(MISMATCH)
    group = {
        "channel": "alipay", "kind": "amount_mismatch", "differing": ["amount"], "currency": "CNY",
        "difference": "-1.00", "count": 2, "sum": "-2.00", "first_opened_at": "2026-11-23T08:00:00Z",
        "last_opened_at": "2026-11-23T08:00:00Z",
    }  # fmt: skip
    services.answer("ledger", "list_mismatch_groups", {"items": [group], "next_cursor": None})
    assert gateway.dora.get("/api/v1/mismatches/groups?status=open").json["items"] == [group]


def test_bulk_takes_its_ids_and_answers_for_each(gateway: Any, services: Any) -> None:
    refused = {"code": "mismatch_not_found", "title": "No.", "detail": "No.", "errors": None}
    result = {
        "items": [{"id": "mis_1", "status": "ignored"}, {"id": "mis_2", "error": refused}], "done": 1, "refused": 1,
    }  # fmt: skip
    services.answer("ledger", "act_on_mismatches", result)
    body = WHY | {"act": "ignore", "ids": ["mis_1", "mis_2"]}
    answer = gateway.bob.post("/api/v1/mismatches/bulk", json=body, headers=KEY)
    assert (answer.status_code, answer.json) == (200, result)
    [call] = services.calls_of("ledger", "act_on_mismatches")
    assert call.arguments == body


def test_corrections_are_listed_shown_and_reversed(gateway: Any, services: Any) -> None:
    services.answer("ledger", "list_corrections", {"items": [CORRECTION], "next_cursor": None})
    services.answer("ledger", "get_correction", CORRECTION)
    services.answer("ledger", "reverse_correction", CORRECTION)
    query = {"status": ["applied"], "to": "local", "mismatch_id": "mis_1", "merchant_id": AURORA}
    listed = gateway.dora.get("/api/v1/corrections", query_string=query)
    assert listed.json["items"] == [CORRECTION]
    assert query.items() <= services.calls_of("ledger", "list_corrections")[0].arguments.items()
    assert gateway.dora.get("/api/v1/corrections/cor_1").json == CORRECTION
    assert gateway.alice.post("/api/v1/corrections/cor_1/reverse", json=WHY, headers=KEY).json == CORRECTION
    assert services.calls_of("ledger", "reverse_correction")[0].arguments == {"correction_id": "cor_1"} | WHY


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/mismatches/m/reconcile", {}, "reason"),
        ("/mismatches/m/ignore", {"reason": " "}, "reason"),
        ("/mismatches/m/correct", WHY, "to"),
        ("/mismatches/m/correct", WHY | {"to": "both"}, "to"),
        ("/mismatches/m/correct", WHY | {"to": "local", "kind": "gift"}, "kind"),
        ("/mismatches/m/approve", {"content_sha256": "abc"}, "content_sha256"),
        ("/mismatches/m/approve", {"content_sha256": "A" * 64}, "content_sha256"),
        ("/mismatches/bulk", WHY | {"act": "ignore", "ids": []}, "ids"),
        ("/mismatches/bulk", WHY | {"act": "ignore", "ids": ["m"] * 501}, "ids"),
        ("/mismatches/bulk", WHY | {"act": "pay", "ids": ["m"]}, "act"),
        ("/corrections/c/reverse", {}, "reason"),
    ],
)
def test_wrong_body_is_refused_by_field(gateway: Any, path: str, body: Any, field: str) -> None:
    answer = gateway.alice.post(f"/api/v1{path}", json=body, headers=KEY)
    assert (answer.status_code, list(answer.json["errors"])) == (422, [field])


@pytest.mark.parametrize("query", ["kind=odd", "status=gone", "date=yesterday", "min_difference=x", "from=now"])
def test_wrong_filter_is_refused(gateway: Any, query: str) -> None:
    assert gateway.dora.get(f"/api/v1/mismatches?{query}").status_code == 422


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (FourEyes(), 403, "four_eyes"),
        (MismatchNotFound(), 404, "mismatch_not_found"),
        (ProposalChanged(content_sha256="c" * 64), 409, "proposal_changed"),
    ],
)
def test_refusals_are_problems(gateway: Any, services: Any, refusal: Any, status: int, code: str) -> None:
    services.answer("ledger", "approve_correction", refusal)
    answer = gateway.alice.post("/api/v1/mismatches/mis_1/approve", json={}, headers=KEY)
    assert (answer.status_code, answer.json["code"]) == (status, code)
