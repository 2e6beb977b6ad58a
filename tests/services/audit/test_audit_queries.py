"""Searching the log: every filter, pages, and what each person may see."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from services.audit import queries
from shared import searching
from shared.contracts.audit import LogNotFound, LogQueryTooBroad
from shared.errors import InvalidRequest
from shared.passport import Passport
from shared.times import rfc3339, utc_now
from tests.services.audit.envelopes import AURORA, BOREALIS, api_call, balances_changed, entry, envelope

NOW = utc_now()
STATUS_CHANGES = {"status": {"before": 1, "after": 2}}


def ago(**span: float) -> Any:
    return NOW - timedelta(**span)


@pytest.fixture
def log(session: Session, record: Callable[..., int]) -> Session:
    """A little of everything, of two merchants and of none, by four people, from an hour ago to three weeks."""
    record(
        envelope(at=ago(days=20), resource_id="card_old", request_id="req_old"),
        envelope(
            at=ago(hours=5),
            actor="Bob",
            resource_id="card_1",
            payload={"number_masked": "••1111", "reason": "Stolen wallet", "changes": STATUS_CHANGES},
        ),
        envelope("CardCreated", at=ago(hours=4), action="cards.create_card", merchant_id=BOREALIS, actor="Charlie"),
        balances_changed([entry(1), entry(2, merchant_id=BOREALIS)], at=ago(hours=3), actor="Alice"),
        api_call(403, at=ago(hours=2), actor="Bob", request_id="req_denied"),
        envelope("SystemErrorOccurred", "ledger", at=ago(hours=1), merchant_id=None, payload={"error": "X"}),
    )
    return session


def search(session: Session, passport: Passport, **filters: Any) -> list[str]:
    """Return the messages found, newest first."""
    return [item["message"] for item in queries.list_logs(session, passport, limit=50, **filters)["items"]]


def test_list_is_newest_first_and_of_the_last_seven_days(log: Session, alice: Passport) -> None:
    page = queries.list_logs(log, alice, limit=50)
    times = [item["time"] for item in page["items"]]
    assert times == sorted(times, reverse=True)
    assert len(times) == 7
    assert page["to_time"] is None
    assert page["from_time"] is not None


def test_row_is_shown_whole(log: Session, alice: Passport) -> None:
    (item,) = queries.list_logs(log, alice, limit=50, log_type="data_change")["items"]
    assert item | {"id": "", "request_id": "", "time": ""} == {
        "id": "",
        "log_type": "data_change",
        "time": "",
        "actor": "usr_bob",
        "actor_name": "Bob",
        "actor_type": "user",
        "action": "cards.freeze_card",
        "resource_type": "card",
        "resource_id": "card_1",
        "order_no": None,
        "merchant_id": AURORA,
        "service": "cards",
        "event": "CardFrozen",
        "ip": "192.0.2.7",
        "user_agent": "tests",
        "request_id": "",
        "outcome": "success",
        "status": None,
        "duration_ms": None,
        "message": "Card frozen: ••1111 (status)",
        "reason": "Stolen wallet",
        "changes": {"status": {"before": 1, "after": 2}},
    }


ENTRY_1 = "Purchase of user u1: -12.50 CNY, balance 100.00"
ENTRY_2 = "Purchase of user u2: -12.50 CNY, balance 100.00"
CHANGE = "Card frozen: ••1111 (status)"
DENIED = "GET /api/v1/cards/{card_id} → 403"


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"log_type": "system_error"}, ["X"]),
        ({"log_type": "api_call"}, [DENIED]),
        ({"user": "usr_bob"}, [DENIED, CHANGE, "Card frozen: ••1111"]),
        ({"user": "Bob"}, [DENIED, CHANGE, "Card frozen: ••1111"]),
        ({"user": "bob"}, []),
        ({"action": "cards.create_card"}, ["Card created"]),
        ({"action": "ledger.*"}, ["X", ENTRY_2, ENTRY_1]),
        ({"action": "ledger"}, []),
        ({"action": "led.*"}, []),
        ({"q": "stolen WALLET"}, [CHANGE, "Card frozen: ••1111"]),
        ({"q": "u2"}, [ENTRY_2]),
        ({"q": "%"}, []),
        ({"q": "purchase_of"}, []),
        ({"q": "P2026000001"}, [ENTRY_1]),
        ({"q": "req_denied"}, [DENIED]),
        ({"q": "card_old"}, ["Card frozen"]),
        ({"resource_type": "entry"}, [ENTRY_2, ENTRY_1]),
        ({"resource_type": "card", "resource_id": "card_1"}, [CHANGE, "Card frozen: ••1111"]),
        ({"resource_id": "card_old"}, ["Card frozen"]),
        ({"request_id": "req_old"}, ["Card frozen"]),
        ({"outcome": "denied"}, [DENIED]),
        ({"of_service": "gateway"}, [DENIED]),
        ({"merchant_id": BOREALIS}, [ENTRY_2, "Card created"]),
        ({"merchant_id": BOREALIS, "q": "purchase"}, [ENTRY_2]),
        ({"from_time": rfc3339(ago(hours=3)), "to_time": rfc3339(ago(hours=2))}, [ENTRY_2, ENTRY_1]),
        ({"from_time": rfc3339(ago(days=30)), "to_time": rfc3339(ago(days=10))}, ["Card frozen"]),
        ({"to_time": rfc3339(ago(days=18))}, ["Card frozen"]),
    ],
)
def test_filter_finds_its_rows(log: Session, alice: Passport, filters: dict[str, str], found: list[str]) -> None:
    assert search(log, alice, **filters) == found


def test_pages_follow_each_other_without_a_gap_or_an_overlap(log: Session, alice: Passport, bob: Passport) -> None:
    for passport in (alice, bob):
        whole = search(log, passport)
        paged, cursor = [], None
        while True:
            page = queries.list_logs(log, passport, limit=2, cursor=cursor)
            paged += [item["message"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert paged == whole


@pytest.mark.parametrize("cursor", ["nonsense", "WzEsMl0", "WyJ4IiwxXQ", "W10"])
def test_cursor_that_is_not_of_this_list_is_refused(log: Session, alice: Passport, cursor: str) -> None:
    with pytest.raises(InvalidRequest):
        queries.list_logs(log, alice, limit=2, cursor=cursor)


def test_who_sees_one_merchant_sees_its_rows_and_their_own_of_none(log: Session, bob: Passport) -> None:
    assert search(log, bob) == [DENIED, ENTRY_1, CHANGE, "Card frozen: ••1111"]
    assert search(log, bob, log_type="system_error") == []
    assert search(log, bob, user="Charlie") == []
    assert search(log, bob, q="P2026000002") == []
    assert search(log, bob, merchant_id=BOREALIS) == []
    assert search(log, bob, merchant_id=AURORA) == [ENTRY_1, CHANGE, "Card frozen: ••1111"]


def test_call_of_somebody_else_is_not_shown_to_who_sees_some_merchants(log: Session, charlie: Passport) -> None:
    assert search(log, charlie) == [ENTRY_2, "Card created"]


def test_who_sees_no_merchant_sees_their_own_acts_only(log: Session, bob: Passport) -> None:
    nobody = Passport(
        actor_id="usr_bob", actor_name="Bob", actor_type="user", permissions=bob.permissions, merchants=frozenset()
    )
    assert search(log, nobody) == [DENIED]
    assert queries.log_stats(log, nobody, by="outcome")["items"] == [{"key": "denied", "count": 1}]


def test_detail_has_the_event_s_own_fields_and_the_place_in_the_chain(log: Session, alice: Passport) -> None:
    (item,) = queries.list_logs(log, alice, limit=1, q="P2026000001")["items"]
    row = queries.get_log(log, alice, log_id=item["id"])
    assert row["details"] is not None
    assert (row["details"]["amount"], row["details"]["version"]) == ("-12.50", 3)
    assert row["chain"]["seq"] == 5
    assert row["chain"]["is_intact"]
    log.execute(text("update log_rows set message = 'x' where seq = 5"))
    assert not queries.get_log(log, alice, log_id=item["id"])["chain"]["is_intact"]


def test_first_row_of_all_stands_on_nothing(log: Session, alice: Passport) -> None:
    (item,) = queries.list_logs(log, alice, limit=1, q="card_old")["items"]
    place = queries.get_log(log, alice, log_id=item["id"])["chain"]
    assert (place["seq"], place["prev_hash"], place["is_intact"]) == (1, "00" * 32, True)


def test_row_out_of_scope_looks_like_one_that_does_not_exist(log: Session, alice: Passport, bob: Passport) -> None:
    for found in queries.list_logs(log, alice, limit=50)["items"]:
        is_bobs = found["merchant_id"] == AURORA or (found["merchant_id"] is None and found["actor"] == "usr_bob")
        if is_bobs:
            assert queries.get_log(log, bob, log_id=found["id"])["id"] == found["id"]
        else:
            with pytest.raises(LogNotFound):
                queries.get_log(log, bob, log_id=found["id"])


@pytest.mark.parametrize("log_id", ["", "x", "x-", "-1", "abc-99999999999", "abc-½", "1-0"])
def test_unknown_row_is_not_found(log: Session, alice: Passport, log_id: str) -> None:
    with pytest.raises(LogNotFound):
        queries.get_log(log, alice, log_id=log_id)


@pytest.mark.parametrize(
    ("by", "counts"),
    [
        (
            "action",
            {
                "cards.freeze_card": 2,
                "ledger.post_changes": 2,
                "cards.create_card": 1,
                "cards.get_card": 1,
                "ledger.freeze_card": 1,
            },
        ),
        ("user", {"Alice": 3, "Bob": 3, "Charlie": 1}),
        ("outcome", {"success": 5, "denied": 1, "failed": 1}),
    ],
)
def test_counts_are_of_the_last_seven_days_largest_first(
    log: Session, alice: Passport, by: Any, counts: dict[str, int]
) -> None:
    items = queries.log_stats(log, alice, by=by)["items"]
    assert {item["key"]: item["count"] for item in items} == counts
    assert [item["count"] for item in items] == sorted((item["count"] for item in items), reverse=True)


def test_counts_by_hour_are_in_the_order_of_time(log: Session, alice: Passport) -> None:
    items = queries.log_stats(log, alice, by="hour")["items"]
    assert [item["count"] for item in items] == [2, 1, 2, 1, 1]
    assert items[0]["key"] == rfc3339(ago(hours=5).replace(minute=0, second=0, microsecond=0))


def test_counts_are_cut_to_what_the_caller_sees(log: Session, bob: Passport) -> None:
    counts = {item["key"]: item["count"] for item in queries.log_stats(log, bob, by="user")["items"]}
    assert counts == {"Bob": 3, "Alice": 1}


def test_search_that_takes_too_long_is_refused_as_too_broad(
    log: Session, alice: Passport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "SEARCH_TIMEOUT_MS", 20)
    with pytest.raises(LogQueryTooBroad), searching.bounded_search(log, LogQueryTooBroad):
        log.execute(text("select pg_sleep(1)"))


def test_search_is_planned_for_its_own_values(log: Session) -> None:
    # A generic plan of `ilike $1` passes over the trigrams: seconds in place of milliseconds (PERFORMANCE.md).
    with searching.bounded_search(log, LogQueryTooBroad):
        assert log.scalar(text("show plan_cache_mode")) == "force_custom_plan"


def used_permissions(session: Session, *actors: str, **since: float) -> dict[str, list[tuple[str, int]]]:
    from_time = rfc3339(ago(**(since or {"days": 90})))
    actor_ids = [f"usr_{actor}" for actor in actors]
    found = queries.summarize_actions_of_actors(session, actor_ids=actor_ids, from_time=from_time)
    return {actor: [(use["permission"], use["uses"]) for use in uses] for actor, uses in found.items()}


def test_used_permissions_are_counted_by_actor_from_calls_that_were_let_in(
    session: Session, record: Callable[..., int]
) -> None:
    def call(permission: str | None, status: int = 200, **fields: Any) -> Any:
        made = api_call(status, **fields)
        made["payload"]["permission"] = permission
        return made

    record(
        call("cards:read", at=ago(hours=2), actor="Bob"),
        call("cards:read", at=ago(hours=1), actor="Bob"),
        call("cards:operate", status=409, at=ago(hours=1), actor="Bob"),  # let in, and refused for another reason
        call("users:admin", status=403, at=ago(hours=1), actor="Bob"),
        call(None, at=ago(hours=1), actor="Bob"),
        call("orders:read", at=ago(days=89), actor="Bob"),
        call("logs:read", at=ago(days=91), actor="Bob"),
        call("ledger:read", at=ago(hours=1), actor="Charlie"),
        balances_changed([entry(1, type=331)], at=ago(hours=1), actor="Charlie"),
        balances_changed([entry(2, type=341), entry(3, type=335)], at=ago(hours=1), actor="Alice"),
        envelope("OrderCreated", "orders", at=ago(hours=1), actor="Alice", payload={"type": "recharge"}),
    )
    assert used_permissions(session, "bob", "charlie", "alice", "nobody") == {
        "usr_bob": [("cards:operate", 1), ("cards:read", 2), ("orders:read", 1)],
        "usr_charlie": [("ledger:read", 1)],
        "usr_alice": [("ledger:admin", 2)],  # adjustments ask for more than their route
        "usr_nobody": [],
    }
    last = queries.summarize_actions_of_actors(session, actor_ids=["usr_bob"], from_time=rfc3339(ago(days=1)))
    assert {use["permission"]: use["last_used_at"] for use in last["usr_bob"]}["cards:read"] == rfc3339(ago(hours=1))
