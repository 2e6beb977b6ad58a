"""The routes of the log: every filter reaches the service under its name, and the whole chain is checked."""

from typing import Any

import pytest

from shared.contracts.audit import LogNotFound
from tests.gateway.conftest import Gateway
from tests.gateway.people import FakeServices

LOG = {
    "id": "abc-0",
    "log_type": "operation",
    "time": "2026-11-24T08:00:00Z",
    "actor": "usr_bob",
    "actor_name": "bob",
    "actor_type": "user",
    "action": "cards.freeze_card",
    "resource_type": "card",
    "resource_id": "car_1",
    "order_no": None,
    "merchant_id": "mer_aurora",
    "service": "cards",
    "event": "CardFrozen",
    "ip": "192.0.2.7",
    "user_agent": "tests",
    "request_id": "req_1",
    "outcome": "success",
    "status": None,
    "duration_ms": None,
    "message": "Card frozen",
    "reason": "Stolen",
    "changes": {"status": {"before": "active", "after": "frozen"}},
}
CHAIN = {"seq": 3, "prev_hash": "00", "hash": "01", "is_intact": True}
FILTERS = {
    "type": "operation",
    "from": "2026-11-01T00:00:00Z",
    "to": "2026-12-01T00:00:00Z",
    "user": "bob",
    "action": "cards.*",
    "q": "stolen",
    "resource_type": "card",
    "resource_id": "car_1",
    "request_id": "req_1",
    "outcome": "success",
    "service": "cards",
    "merchant_id": "mer_aurora",
}
RENAMED = {"type": "log_type", "from": "from_time", "to": "to_time", "service": "of_service"}


def test_each_filter_reaches_the_service(gateway: Gateway, services: FakeServices) -> None:
    services.answer("audit", "list_logs", {"items": [LOG], "next_cursor": "x", "from_time": None, "to_time": None})
    answer = gateway.bob.get("/api/v1/logs", query_string=FILTERS | {"limit": 7})
    assert answer.json == {"items": [LOG], "next_cursor": "x"}
    (call,) = services.calls_of("audit", "list_logs")
    assert call.arguments == {RENAMED.get(k, k): v for k, v in FILTERS.items()} | {"limit": 7, "cursor": None}


@pytest.mark.parametrize(
    "query",
    [
        {"type": "payment"},
        {"outcome": "maybe"},
        {"from": "yesterday"},
        {"to": "2026-11-01"},
        {"q": ""},
        {"q": "x" * 101},
        {"actor": "bob"},
        {"limit": "501"},
    ],
)
def test_wrong_filter_is_refused(gateway: Gateway, query: dict[str, str]) -> None:
    answer = gateway.bob.get("/api/v1/logs", query_string=query)
    assert answer.status_code == 422
    assert set(answer.get_json(force=True)["errors"]) == set(query)


def test_rows_come_as_csv_with_every_column(gateway: Gateway, services: FakeServices) -> None:
    formula = LOG | {"reason": "=1+1"}
    services.answer("audit", "list_logs", {"items": [formula], "next_cursor": None})
    answer = gateway.bob.get("/api/v1/logs", headers={"Accept": "text/csv"})
    header, row = answer.text.splitlines()
    assert header == ",".join(LOG)
    assert "'=1+1" in row


def test_row_is_shown_whole_or_not_found(gateway: Gateway, services: FakeServices) -> None:
    services.answer("audit", "get_log", LOG | {"details": {"card_id": "car_1"}, "chain": CHAIN})
    assert gateway.bob.get("/api/v1/logs/abc-0").json == LOG | {"details": {"card_id": "car_1"}, "chain": CHAIN}
    services.answer("audit", "get_log", LogNotFound())
    assert gateway.bob.get("/api/v1/logs/abc-1").status_code == 404


def test_counts_reach_the_service(gateway: Gateway, services: FakeServices) -> None:
    counted = {"by": "user", "from_time": "2026-11-01T00:00:00Z", "to_time": "2026-11-02T00:00:00Z", "items": []}
    services.answer("audit", "log_stats", counted)
    answer = gateway.bob.get("/api/v1/logs/stats?by=user&from=2026-11-01T00:00:00Z")
    assert answer.json == {"by": "user", "from": counted["from_time"], "to": counted["to_time"], "items": []}
    (call,) = services.calls_of("audit", "log_stats")
    assert call.arguments == {"by": "user", "from_time": "2026-11-01T00:00:00Z", "to_time": None}
    assert gateway.bob.get("/api/v1/logs/stats?by=day").status_code == 422
    assert gateway.bob.get("/api/v1/logs/stats").status_code == 422


BREAK = {"kind": "changed", "seq": 60_000, "seq_last": 60_000, "detail": "Not the one that was hashed.", "id": "a-0"}


def report(**said: Any) -> dict[str, Any]:
    return {"ok": True, "checked": 50_000, "first_broken": None, "broken": [], "next_seq": None} | said


def test_chain_is_checked_to_its_end_call_after_call(gateway: Gateway, services: FakeServices) -> None:
    def verify_chain(from_seq: int | None, **_span: Any) -> dict[str, Any]:
        if from_seq is None:
            return report(next_seq=50_001)
        if from_seq == 50_001:
            return report(ok=False, first_broken=BREAK, broken=[BREAK], next_seq=100_001)
        return report(checked=7)

    services.answer("audit", "verify_chain", verify_chain)
    answer = gateway.dora.get("/api/v1/logs/verify?from=2026-11-01T00:00:00Z")
    assert answer.json == report(ok=False, checked=100_007, first_broken=BREAK, broken=[BREAK])
    calls = services.calls_of("audit", "verify_chain")
    assert [call.arguments["from_seq"] for call in calls] == [None, 50_001, 100_001]
    assert {call.arguments["from_time"] for call in calls} == {"2026-11-01T00:00:00Z"}


def test_chain_without_an_end_is_checked_for_so_long_and_told_where_to_go_on(
    gateway: Gateway, services: FakeServices
) -> None:
    services.answer("audit", "verify_chain", lambda from_seq, **_: report(next_seq=(from_seq or 1) + 50_000))
    answer = gateway.dora.get("/api/v1/logs/verify")
    assert (answer.json["checked"], answer.json["next_seq"]) == (1_000_000, 1_000_001)
    assert len(services.calls_of("audit", "verify_chain")) == 20


@pytest.mark.parametrize("path", ["/logs", "/logs/abc-0", "/logs/stats?by=user", "/logs/verify"])
def test_nobody_reads_the_log_without_being_signed_in(gateway: Gateway, path: str) -> None:
    assert gateway.nobody.get(f"/api/v1{path}").status_code == 401


def test_reading_the_log_is_itself_logged(gateway: Gateway, services: FakeServices, records: Any) -> None:
    services.answer("audit", "list_logs", {"items": [LOG], "next_cursor": None})
    gateway.bob.get("/api/v1/logs?user=alice")
    (record,) = records()
    assert (record["event"], record["action"], record["actor"]["id"]) == ("ApiCalled", "logs.list_logs", "usr_bob")
