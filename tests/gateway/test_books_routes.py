"""The routes of the books: what reaches the ledger, what comes back, who may."""

from typing import Any

import pytest

from shared.contracts.reconciliations import DayNotReady

CHECK = {
    "name": "recharge_total", "currency": "CNY", "channel": "ali pay", "unit": "amount", "expected": "2.00",
    "actual": "1.00", "difference": "-1.00", "tolerance": "0", "ok": False,
}  # fmt: skip
PLACELESS = CHECK | {"channel": None}
LARGE = CHECK | {"name": "large_changes", "channel": None, "unit": "count", "expected": "0", "actual": "3"}
FIGURES = {
    "currency": "CNY", "channel": None, "recharge": "2.00", "withdrawal": "0", "consumption": "1.00", "refund": "0",
    "fees": "0", "balance_change": "1.00", "entries": 2,
}  # fmt: skip
ROW = {
    "order_no": "P-1", "upstream_ref": None, "entry_id": None, "merchant_id": "mer_aurora", "channel": "alipay",
    "currency": "CNY", "expected": "2.00", "actual": "1.00", "difference": "-1.00",
}  # fmt: skip
CLOSED = {
    "date": "2026-11-20", "timezone": "UTC", "starts_at": "2026-11-20T00:00:00Z", "ends_at": "2026-11-21T00:00:00Z",
    "digest": "ab", "previous_digest": None, "reason": "Done.", "actor_id": "usr_alice", "actor_name": "alice",
    "closed_at": "2026-11-21T08:00:00Z",
}  # fmt: skip


def test_a_daily_check_leads_to_the_rows_behind_it(gateway: Any, services: Any) -> None:
    daily = {
        "date": "2026-11-20", "timezone": "UTC", "closed_at": None, "is_archived": False,
        "items": [CHECK, PLACELESS, LARGE], "figures": [FIGURES], "after_close": [],
    }  # fmt: skip
    services.answer("ledger", "read_daily_checks", daily)
    answer = gateway.dora.get("/api/v1/reconciliations/daily", query_string={"date": "2026-11-20"}).json
    first, second, third = answer["items"]
    assert answer | {"items": [CHECK, PLACELESS, LARGE]} == daily
    services.answer("ledger", "list_daily_check_rows", {"items": [ROW], "next_cursor": None})
    assert gateway.dora.get(first["rows"]).json == {"items": [ROW], "next_cursor": None}
    gateway.dora.get(second["rows"])
    gateway.dora.get(third["rows"])
    calls = [call.arguments for call in services.calls_of("ledger", "list_daily_check_rows")]
    named = {"date": "2026-11-20", "currency": "CNY", "limit": 50, "cursor": None}
    assert calls == [
        named | {"check": "recharge_total", "channel": "ali pay"},
        named | {"check": "recharge_total", "channel": ""},
        named | {"check": "large_changes"},
    ]


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("daily", {}, "date"),
        ("daily", {"date": "yesterday"}, "date"),
        ("daily/rows", {"date": "2026-11-20"}, "check"),
        ("daily/rows", {"date": "2026-11-20", "check": "weather"}, "check"),
        ("monthly", {"month": "2026-13"}, "month"),
    ],
)
def test_wrong_query_is_refused_by_field(gateway: Any, path: str, query: dict[str, str], field: str) -> None:
    answer = gateway.dora.get(f"/api/v1/reconciliations/{path}", query_string=query)
    assert (answer.status_code, list(answer.json["errors"])) == (422, [field])


def test_a_month_is_shown_with_its_days(gateway: Any, services: Any) -> None:
    monthly = {
        "month": "2026-11", "timezone": "UTC", "is_closed": False, "items": [FIGURES], "after_close": [FIGURES],
        "days": [{"date": "2026-11-01", "is_closed": True, "items": [FIGURES]}],
    }  # fmt: skip
    services.answer("ledger", "read_monthly_figures", monthly)
    assert gateway.dora.get("/api/v1/reconciliations/monthly", query_string={"month": "2026-11"}).json == monthly
    [call] = services.calls_of("ledger", "read_monthly_figures")
    assert call.arguments == {"month": "2026-11"}


def test_a_day_is_closed_with_a_reason_by_an_administrator(gateway: Any, services: Any) -> None:
    services.answer("ledger", "close_day", CLOSED)
    body = {"date": "2026-11-20", "reason": "Done."}
    assert gateway.bob.post("/api/v1/closed-days", json=body).status_code == 403
    assert gateway.alice.post("/api/v1/closed-days", json={"date": "2026-11-20"}).status_code == 422
    answer = gateway.alice.post("/api/v1/closed-days", json=body | {"force": True})
    assert (answer.status_code, answer.json) == (201, CLOSED)
    [call] = services.calls_of("ledger", "close_day")
    assert call.arguments == body | {"force": True}
    services.answer("ledger", "close_day", DayNotReady(open_mismatches=2, channels_open=["alipay"]))
    refused = gateway.alice.post("/api/v1/closed-days", json=body)
    assert (refused.status_code, refused.json["code"], refused.json["open_mismatches"]) == (409, "day_not_ready", 2)


def test_closed_days_are_listed(gateway: Any, services: Any) -> None:
    services.answer("ledger", "list_closed_days", {"items": [CLOSED], "next_cursor": None})
    assert gateway.dora.get("/api/v1/closed-days").json == {"items": [CLOSED], "next_cursor": None}
