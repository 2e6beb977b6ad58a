"""What the log says of an event."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.audit.domain.chain import canonical
from services.audit.domain.rows import contents_of, outcome_of, stored
from tests.services.audit.envelopes import AURORA, BOREALIS, api_call, balances_changed, entry, envelope


def test_business_event_is_an_operation_with_who_what_and_why() -> None:
    (row,) = contents_of(envelope(payload={"card_id": "card_9", "number_masked": "411111••••1111", "reason": "Stolen"}))
    assert row["log_type"] == "operation"
    assert (row["actor_id"], row["actor_name"], row["actor_type"]) == ("usr_alice", "Alice", "user")
    assert (row["action"], row["service"], row["event"]) == ("cards.freeze_card", "cards", "CardFrozen")
    assert row["message"] == "Card frozen: 411111••••1111"
    assert row["reason"] == "Stolen"
    assert row["details"] == {"card_id": "card_9", "number_masked": "411111••••1111"}
    assert row["outcome"] == "success"


def test_event_with_changes_makes_a_data_change_besides() -> None:
    changes = {"status": {"before": "active", "after": "frozen"}}
    event = envelope(payload={"number_masked": "4111••1111", "changes": changes, "reason": "Stolen"})
    operation, change = contents_of(event)
    assert (operation["log_type"], operation["part"], operation["changes"]) == ("operation", 0, changes)
    assert (change["log_type"], change["part"], change["changes"]) == ("data_change", 1, changes)
    assert change["message"] == "Card frozen: 4111••1111 (status)"
    assert change["reason"] == "Stolen"


def test_event_with_empty_changes_is_an_operation_only() -> None:
    assert [row["log_type"] for row in contents_of(envelope(payload={"changes": {}}))] == ["operation"]


def test_balance_changes_make_an_operation_for_each_entry() -> None:
    rows = contents_of(balances_changed([entry(1), entry(2, merchant_id=BOREALIS, reason="Gift", order_no=None)]))
    assert [row["part"] for row in rows] == [0, 1]
    assert [row["resource_id"] for row in rows] == ["ent_1", "ent_2"]
    assert [row["merchant_id"] for row in rows] == [AURORA, BOREALIS]
    assert [row["order_no"] for row in rows] == ["P2026000001", None]
    assert [row["reason"] for row in rows] == [None, "Gift"]
    assert rows[0]["message"] == "Purchase of user u1: -12.50 CNY, balance 100.00"
    assert {row["log_type"] for row in rows} == {"operation"}


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "success"), (304, "success"), (401, "denied"), (403, "denied"), (404, "refused"), (503, "failed")],
)
def test_call_of_the_api_tells_status_duration_and_outcome(status: int, outcome: str) -> None:
    (row,) = contents_of(api_call(status))
    assert (row["log_type"], row["status"], row["outcome"]) == ("api_call", status, outcome)
    assert row["duration_ms"] == 13
    assert row["message"] == f"GET /api/v1/cards/{{card_id}} → {status}"


def test_call_without_a_status_counts_as_failed() -> None:
    assert outcome_of(None) == "failed"


def test_system_error_of_any_process_is_one() -> None:
    (own,) = contents_of(envelope("SystemErrorOccurred", "ledger", payload={"error": "ledger.post: KeyError"}))
    assert (own["log_type"], own["outcome"], own["message"]) == ("system_error", "failed", "ledger.post: KeyError")
    failed = {"error": "KeyError", "method": "POST", "path": "/api/v1/x", "status": 500, "duration_ms": 3.2}
    (of_call,) = contents_of(envelope("SystemErrorOccurred", "gateway", payload=failed))
    assert (of_call["message"], of_call["status"], of_call["duration_ms"]) == ("KeyError: POST /api/v1/x", 500, 3)


@pytest.mark.parametrize(
    ("event", "outcome"), [("SignInFailed", "denied"), ("TaskRunFailed", "failed"), ("SignedIn", "success")]
)
def test_event_that_tells_of_a_failure_has_its_outcome(event: str, outcome: str) -> None:
    (row,) = contents_of(envelope(event, "users", payload={"username": "mallory"}))
    assert row["outcome"] == outcome


def test_what_cannot_be_stored_is_mended_and_what_is_too_long_is_cut() -> None:
    nasty = envelope(
        resource_id="x" * 5_000,
        user_agent="a\0b\ud800c",
        at="not a time",
        payload={"reason": "r" * 5_000, "note": "\0", "rate": 0.1, "big": 2**60, "list": [1.5] * 5_000},
    )
    (row,) = contents_of(nasty)
    assert len(row["resource_id"] or "") == 200
    assert row["user_agent"] == "a�b�c"
    assert len(row["reason"] or "") == 500
    details = row["details"] or {}
    assert (details["note"], details["rate"], details["big"]) == ("�", "0.1", str(2**60))
    assert len(details["list"]) == 1_000
    canonical(row)


def test_secret_that_somebody_typed_as_a_reason_is_masked() -> None:
    changes = {"note": {"before": None, "after": "card 4111 1111 1111 1111"}}
    operation, change = contents_of(envelope(payload={"reason": "PAN 4111111111111111 leaked", "changes": changes}))
    assert operation["reason"] == "PAN ***1111 leaked"
    assert "4111 1111 1111 1111" not in str(change["changes"])


def test_order_number_is_kept_as_it_is_even_where_it_looks_like_a_card() -> None:
    (row,) = contents_of(balances_changed([entry(1, order_no="4111111111111111", note="for 4111111111111111")]))
    assert row["order_no"] == "4111111111111111"
    assert (row["details"] or {})["note"] == "for ***1111"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


_FIELDS = ["status", "duration_ms", "entries", "changes", "reason", "error", "method", "path", "order_no", "name"]
_EVENTS = [
    ("CardFrozen", "cards"),
    ("ApiCalled", "gateway"),
    ("SystemErrorOccurred", "x"),
    ("BalancesChanged", "ledger"),
]


@given(
    event=st.sampled_from(_EVENTS),
    payload=st.dictionaries(st.sampled_from(_FIELDS) | st.text(), _JSON, max_size=5),
)
def test_whatever_an_event_holds_becomes_rows_that_any_language_hashes_alike(
    event: tuple[str, str], payload: dict[str, Any]
) -> None:
    rows = contents_of(envelope(*event, payload=payload))
    assert rows
    for row in rows:
        text = canonical(row)
        plain = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert plain.encode() == text
        assert json.loads(text) == row
        assert "\0" not in str(row["message"])


@given(value=_JSON)
def test_stored_json_reads_back_as_it_was_written(value: Any) -> None:
    once = stored(value)
    assert json.loads(json.dumps(once)) == once
    assert stored(once) == once
