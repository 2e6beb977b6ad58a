"""The routes of explanations: their shapes, and what of a request reaches the service."""

from typing import Any

import pytest

from shared.contracts.explanations import RefusalNotFound
from tests.gateway.people import AURORA
from tests.gateway.test_ledger_routes import ENTRY

BALANCE = {
    "merchant_id": AURORA,
    "user_id": "user-1",
    "holder_type": "user",
    "holder_id": "user-1",
    "currency": "CNY",
    "from_time": None,
    "at": "2026-11-24T08:00:00Z",
    "opening": {"balance": "0", "version": 0},
    "opening_is_archived": False,
    "changes": [
        {
            "type": 321,
            "type_name": "Recharge",
            "group": "Recharge/Withdrawal",
            "count": 1,
            "increase": "1.00",
            "decrease": "0",
            "net": "1.00",
        }
    ],
    "closing": {"balance": "1.00", "version": 1},
    "held": "0",
    "available": "1.00",
    "holds": [],
    "proof": {
        "ok": True, "entries": 1, "gaps": 0, "broken": 0, "changed": 0, "sum_is_right": True,
        "text": "proved: 1 rows, 0 gaps",
    },
}  # fmt: skip
REFUSAL = {"code": "insufficient_balance", "title": "No.", "detail": "No.", "errors": None}
CHANGE = {
    "is_allowed": False,
    "rule": "balance",
    "refusal": REFUSAL,
    "rules": [{"rule": "balance", "ok": False, "detail": "No."}],
    "may_post": True,
    "currency": "CNY",
    "balance": "1.00",
    "held": "0",
    "available": "1.00",
    "balance_after": None,
    "short_by": "1.00",
    "holds": [],
}
ASKED = {
    "merchant_id": AURORA, "user_id": "user-1", "type": 323, "amount": "-2.00", "currency": "CNY", "order_no": "P-1",
}  # fmt: skip
FEE = {
    "order_no": "P-1",
    "merchant_id": AURORA,
    "channel": "alipay",
    "amount": "12.30",
    "currency": "CNY",
    "fee_percent": "0.55",
    "fee_source": "channel",
    "exact": "0.06765",
    "rounding": "half up, to 2 digits",
    "fee": "0.07",
    "charged": "0.07",
    "entries": [ENTRY],
}


def test_balance_is_explained_of_whom_and_when_the_query_says(gateway: Any, services: Any) -> None:
    services.answer("ledger", "explain_balance", BALANCE)
    query = {"user_id": "user-1", "currency": "CNY", "at": "2026-11-24T08:00:00Z", "merchant_id": AURORA}
    answer = gateway.dora.get("/api/v1/explain/balance", query_string=query | {"from": "2026-11-01T00:00:00Z"})
    shown = {("from" if name == "from_time" else name): value for name, value in BALANCE.items()}
    assert (answer.status_code, answer.json) == (200, shown)
    [call] = services.calls_of("ledger", "explain_balance")
    assert call.arguments == query | {"from_time": "2026-11-01T00:00:00Z"}


def test_change_is_explained_as_it_would_be_posted(gateway: Any, services: Any) -> None:
    services.answer("ledger", "explain_change", CHANGE)
    answer = gateway.dora.post("/api/v1/explain/change", json=ASKED)
    assert (answer.status_code, answer.json) == (200, CHANGE)
    assert services.calls_of("ledger", "explain_change")[0].arguments == ASKED


def test_refusal_and_fee_are_explained(gateway: Any, services: Any) -> None:
    refused = {
        "request_id": "req_1", "refused_at": "2026-11-24T08:00:00Z", "rule": "balance", "refusal": REFUSAL,
        "facts": {"available": "1.00"},
    }  # fmt: skip
    services.answer("ledger", "explain_refusal", refused)
    services.answer("ledger", "explain_fee", FEE)
    assert gateway.dora.get("/api/v1/explain/refusal?request_id=req_1").json == refused
    assert gateway.dora.get("/api/v1/explain/fee?order_no=P-1").json == FEE
    services.answer("ledger", "explain_refusal", RefusalNotFound())
    answer = gateway.dora.get("/api/v1/explain/refusal?request_id=req_2")
    assert (answer.status_code, answer.json["code"]) == (404, "refusal_not_found")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("balance?user_id=u", "currency"),
        ("balance?currency=XXQ", "currency"),
        ("balance?currency=CNY&at=now", "at"),
        ("refusal", "request_id"),
        ("fee", "order_no"),
    ],
)
def test_wrong_query_is_refused_by_field(gateway: Any, path: str, field: str) -> None:
    answer = gateway.dora.get(f"/api/v1/explain/{path}")
    assert (answer.status_code, list(answer.json["errors"])) == (422, [field])


def test_malformed_change_is_refused_at_the_edge(gateway: Any) -> None:
    answer = gateway.dora.post("/api/v1/explain/change", json=ASKED | {"amount": 2})
    assert (answer.status_code, list(answer.json["errors"])) == (422, ["amount"])
