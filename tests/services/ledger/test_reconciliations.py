"""Reconciling a channel's day: what each kind says, what waits, what heals, what stays as a person left it."""

import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.calls.reconciliations import ReconciliationCalls
from services.ledger.queries import reconciliations as queries
from services.ledger.usecases import reconciliations
from shared.contracts.reconciliations import (
    DayNotBegun,
    ReconciliationNotFound,
    ReconciliationRunning,
)
from shared.errors import InvalidRequest, PermissionDenied
from shared.passport import Passport
from shared.times import utc_now
from tests.conftest import AURORA
from tests.services.ledger.orders import events
from tests.services.ledger.worlds import (
    ALICE,
    CHANNEL,
    add_channel,
    add_order,
    add_record,
    mismatches,
    open_ones,
    reconcile,
)

DAY = date(2026, 11, 20)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def session(session_of: Callable[[str], Session]) -> Session:
    session = session_of("ledger")
    add_channel(session)
    return session


def one_of_each_kind(session: Session) -> set[tuple[str, str | None, str | None]]:
    """Write a pair that fits, and one mismatch of each kind. Returns: what they are about."""
    add_order(session, "fits", at=NOON)
    add_record(session, "u-fits", "fits", at=NOON)
    add_record(session, "u-twice", "fits", at=NOON + timedelta(hours=1))
    add_record(session, "u-unknown", "nowhere", at=NOON)
    add_order(session, "late")
    add_record(session, "u-late", "late", at=NOON)
    add_order(session, "failed", status="failed")
    add_record(session, "u-failed", "failed", at=NOON)
    add_order(session, "less", at=NOON, amount=900)
    add_record(session, "u-less", "less", at=NOON)
    add_order(session, "alone", at=NOON)
    return {
        ("duplicate_upstream", "fits", "u-twice"),
        ("missing_local", "nowhere", "u-unknown"),
        ("missing_local_update", "late", "u-late"),
        ("status_mismatch", "failed", "u-failed"),
        ("amount_mismatch", "less", "u-less"),
        ("missing_upstream", "alone", None),
    }


def act(session: Session, mismatch: Any, status: str) -> None:
    """Close a mismatch as a person would."""
    session.execute(
        sa.text("update mismatches set status = :s, resolution = 'reconciled' where id = :id"),
        {"s": status, "id": mismatch.id},
    )


def history(session: Session, subject: tuple[str, str | None, str | None]) -> list[tuple[str, str | None, str]]:
    mismatch = mismatches(session)[subject]
    query = sa.text("select act, status_before, status_after from mismatch_history where mismatch_id = :id order by id")
    return [tuple(row) for row in session.execute(query, {"id": mismatch.id})]


def test_each_kind_is_found_and_nothing_else(session: Session) -> None:
    expected = one_of_each_kind(session)
    run = reconcile(session, DAY)
    assert open_ones(session) == expected
    assert (run["records"], run["orders"], run["matched"], run["expected"], run["found"]) == (6, 3, 1, 0, 6)


def test_a_mismatch_says_both_sides_and_what_differs(session: Session) -> None:
    one_of_each_kind(session)
    reconcile(session, DAY)
    found = {kind: row for (kind, _, _), row in mismatches(session).items()}
    less = found["amount_mismatch"]
    assert (less.local["amount"], less.upstream["amount"], less.differing, less.difference) == (
        900,
        1000,
        ["amount"],
        100,
    )
    assert (less.merchant_id, less.currency, less.day, less.channel) == (AURORA, "CNY", DAY, CHANNEL)
    failed = found["status_mismatch"]
    assert (failed.local["status"], failed.upstream["status"], failed.differing) == ("failed", "success", ["status"])
    assert {kind: row.difference for kind, row in found.items()} == {
        "duplicate_upstream": 1000,
        "missing_local": 1000,
        "missing_local_update": 1000,
        "status_mismatch": 1000,
        "amount_mismatch": 100,
        "missing_upstream": -1000,
    }
    assert (found["missing_local"].merchant_id, found["missing_local"].local) == (None, None)
    assert found["missing_upstream"].upstream is None


def test_running_it_again_adds_nothing(session: Session) -> None:
    one_of_each_kind(session)
    first = reconcile(session, DAY)
    before = mismatches(session)
    second = reconcile(session, DAY)
    after = mismatches(session)
    assert {s: row.id for s, row in before.items()} == {s: row.id for s, row in after.items()}
    assert {row.version for row in after.values()} == {1}
    assert {row.seen_by for row in after.values()} == {second["id"]}
    assert {row.found_by for row in after.values()} == {first["id"]}
    assert second["previous_id"] == first["id"]
    assert all(history(session, subject) == [("find", None, "open")] for subject in after)
    assert events(session).count("MismatchFound") == 6


def test_what_may_still_come_right_waits_for_its_grace_and_what_cannot_does_not(session: Session) -> None:
    now = utc_now()
    today, at = now.date(), now - timedelta(minutes=1)
    add_order(session, "alone", at=at)
    add_order(session, "less", at=at, amount=900)
    add_record(session, "u-less", "less", at=at)
    run = reconcile(session, today, grace_seconds=3600)
    assert open_ones(session) == {("amount_mismatch", "less", "u-less")}
    assert (run["expected"], run["found"]) == (1, 1)
    reconcile(session, today, grace_seconds=3600, judged_at=at + timedelta(hours=1))
    assert ("missing_upstream", "alone", None) in open_ones(session)
    reconcile(session, today, grace_seconds=3600)
    assert ("missing_upstream", "alone", None) in open_ones(session)


class Process(ReconciliationCalls):
    """The ledger's calls on a session, with a grace of a day."""

    def __init__(self, session: Session) -> None:
        values = {"system.timezone": "UTC", "ledger.reconciliation_grace": "24h"}
        self.parameters: Any = SimpleNamespace(get=values.__getitem__)
        self.session = session

    def run(self, work: Callable[[Session], Any]) -> Any:
        return work(self.session)

    def reconcile_day(self, **terms: Any) -> Any:
        return super().reconcile_day.__wrapped__(self, ALICE, **terms)


def test_a_morning_comes_back_to_days_of_which_something_was_expected(session: Session) -> None:
    yesterday = utc_now().date() - timedelta(days=1)
    before, long_before = yesterday - timedelta(days=1), yesterday - timedelta(days=9)
    add_channel(session, "wechat")
    for number, day in enumerate((yesterday, before, long_before)):
        add_order(session, f"alone-{number}", at=datetime(day.year, day.month, day.day, 23, 59, tzinfo=UTC))
    # The morning after: all of the day may still come right. Another day was looked at when all grace was over.
    reconcile(session, before, grace_seconds=86400, judged_at=utc_now() - timedelta(days=1))
    reconcile(session, long_before)
    process = Process(session)
    runs = process.reconcile_day()
    assert runs["date"] == yesterday.isoformat()
    assert [(run["channel"], run["date"], run["expected"], run["found"]) for run in runs["items"]] == [
        (CHANNEL, before.isoformat(), 0, 1),
        (CHANNEL, yesterday.isoformat(), 1, 0),
        ("wechat", yesterday.isoformat(), 0, 0),
    ]
    assert ("missing_upstream", "alone-1", None) in open_ones(session)
    assert {run["date"] for run in process.reconcile_day()["items"]} == {yesterday.isoformat()}
    alone = process.reconcile_day(date=long_before.isoformat())
    assert [(run["channel"], run["date"]) for run in alone["items"]] == [
        (CHANNEL, long_before.isoformat()),
        ("wechat", long_before.isoformat()),
    ]


def test_what_comes_right_is_healed_and_its_proposal_is_void(session: Session) -> None:
    one_of_each_kind(session)
    reconcile(session, DAY)
    subject = ("missing_upstream", "alone", None)
    mismatch = mismatches(session)[subject]
    session.execute(sa.text("update mismatches set status = 'pending_approval' where id = :id"), {"id": mismatch.id})
    session.execute(
        sa.text(
            "insert into corrections (id, mismatch_id, direction, content, content_sha256, status, reason, proposed_by,"
            " proposed_by_name) values ('cor_1', :id, 'local', '{}', '', 'proposed', 'x', 'usr_1', 'Alice')"
        ),
        {"id": mismatch.id},
    )
    # It came a day later, and is the answer to yesterday's question all the same.
    add_record(session, "u-alone", "alone", at=NOON + timedelta(days=1))
    run = reconcile(session, DAY)
    healed = mismatches(session)[subject]
    assert (healed.status, healed.resolution, run["healed"], run["found"]) == ("reconciled", "healed", 1, 5)
    assert history(session, subject)[-1] == ("heal", "pending_approval", "reconciled")
    assert session.scalar(sa.text("select status from corrections")) == "void"
    assert events(session)[-1] == "MismatchHealed"
    assert reconcile(session, DAY + timedelta(days=1))["matched"] == 1


def test_what_healed_and_is_found_again_is_open_again(session: Session) -> None:
    subject = ("missing_upstream", "alone", None)
    add_order(session, "alone", at=NOON)
    reconcile(session, DAY)
    add_record(session, "u-alone", "alone", at=NOON)
    reconcile(session, DAY)
    session.execute(sa.text("update upstream_records set voided_by = 'cor_1'"))
    run = reconcile(session, DAY)
    again = mismatches(session)[subject]
    assert (again.status, again.resolution, again.found_by) == ("open", None, run["id"])
    assert [act for act, _, _ in history(session, subject)] == ["find", "heal", "find"]


@pytest.mark.parametrize("status", ["reconciled", "ignored", "corrected"])
def test_what_a_person_closed_stays_closed_until_a_side_says_something_else(session: Session, status: str) -> None:
    subject = ("amount_mismatch", "less", "u-less")
    one_of_each_kind(session)
    reconcile(session, DAY)
    act(session, mismatches(session)[subject], status)
    reconcile(session, DAY)
    assert mismatches(session)[subject].status == status
    session.execute(sa.text("update upstream_records set amount = 1100 where upstream_ref = 'u-less'"))
    reconcile(session, DAY)
    again = mismatches(session)[subject]
    assert (again.status, again.resolution, again.upstream["amount"]) == ("open", None, 1100)
    assert history(session, subject)[-1][0] == "find"


def test_a_record_that_moves_to_the_next_day_is_no_healed_mismatch(session: Session) -> None:
    add_record(session, "u-1", "nowhere", at=NOON)
    reconcile(session, DAY)
    session.execute(sa.text("update upstream_records set occurred_at = occurred_at + interval '1 day'"))
    assert reconcile(session, DAY)["healed"] == 0
    reconcile(session, DAY + timedelta(days=1))
    [row] = mismatches(session).values()
    assert (row.status, row.day) == ("open", DAY + timedelta(days=1))


def test_a_payment_tried_again_is_no_mismatch(session: Session) -> None:
    add_order(session, "third-time", at=NOON)
    add_record(session, "u-1", "third-time", at=NOON - timedelta(hours=2), status="failed")
    add_record(session, "u-2", "third-time", at=NOON - timedelta(hours=1), status="pending")
    add_record(session, "u-3", "third-time", at=NOON)
    assert (reconcile(session, DAY)["matched"], open_ones(session)) == (3, set())


def test_many_mismatches_are_told_in_one_event(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciliations, "EVENT_MISMATCHES_MAX", 2)
    one_of_each_kind(session)
    reconcile(session, DAY)
    assert events(session) == ["ReconciliationFinished", "MismatchesFound"]
    session.execute(sa.text("delete from upstream_records"))
    session.execute(sa.text("update orders set status = 'failed', settled_at = null"))
    reconcile(session, DAY)
    assert events(session)[2:] == ["ReconciliationFinished", "MismatchesHealed"]


def test_runs_are_listed_shown_and_compared(session: Session) -> None:
    one_of_each_kind(session)
    first = reconcile(session, DAY)
    add_record(session, "u-alone", "alone", at=NOON)
    add_record(session, "u-unknown-2", None, at=NOON)
    second = reconcile(session, DAY)
    listed = queries.list_reconciliations(session, ALICE, channel=CHANNEL, day=DAY, limit=1, cursor=None)
    assert [run["id"] for run in listed["items"]] == [second["id"]]
    listed = queries.list_reconciliations(session, ALICE, channel=None, day=None, limit=1, cursor=listed["next_cursor"])
    assert ([run["id"] for run in listed["items"]], listed["next_cursor"]) == ([first["id"]], None)
    detail = queries.get_reconciliation(session, ALICE, reconciliation_id=second["id"])
    assert {kind["kind"]: (kind["count"], kind["open"]) for kind in detail["kinds"]} == {
        "duplicate_upstream": (1, 1),
        "missing_local": (2, 2),
        "missing_local_update": (1, 1),
        "status_mismatch": (1, 1),
        "amount_mismatch": (1, 1),
    }
    terms: dict[str, Any] = {"with_id": None, "change": None, "limit": 4, "cursor": None}
    compared = queries.compare_reconciliations(session, ALICE, reconciliation_id=second["id"], **terms)
    assert (compared["with_id"], compared["new"], compared["gone"], compared["still"]) == (first["id"], 1, 1, 5)
    rest = queries.compare_reconciliations(
        session, ALICE, reconciliation_id=second["id"], **terms | {"cursor": compared["next_cursor"]}
    )
    items = compared["items"] + rest["items"]
    assert (len(items), rest["next_cursor"]) == (7, None)
    changes = {(item["change"], item["kind"], item["upstream_ref"]) for item in items if item["change"] != "still"}
    assert changes == {("new", "missing_local", "u-unknown-2"), ("gone", "missing_upstream", None)}
    with pytest.raises(InvalidRequest):
        queries.compare_reconciliations(session, ALICE, reconciliation_id=first["id"], **terms)
    other = reconcile(session, DAY - timedelta(days=1))
    with pytest.raises(InvalidRequest):
        queries.compare_reconciliations(
            session, ALICE, reconciliation_id=first["id"], **terms | {"with_id": other["id"]}
        )


def test_a_day_that_has_not_begun_and_a_channel_that_nobody_knows_are_refused(session: Session) -> None:
    with pytest.raises(DayNotBegun):
        reconcile(session, utc_now().date() + timedelta(days=2))
    with pytest.raises(InvalidRequest) as refusal:
        reconcile(session, DAY, channel="nobody")
    assert list(refusal.value.errors or {}) == ["channel"]


def test_runs_are_for_who_sees_all_merchants(session: Session, bob: Passport) -> None:
    run = reconcile(session, DAY)
    with pytest.raises(PermissionDenied):
        reconcile(session, DAY, passport=bob)
    listed = queries.list_reconciliations(session, bob, channel=None, day=None, limit=9, cursor=None)
    assert listed == {"items": [], "next_cursor": None}
    with pytest.raises(ReconciliationNotFound):
        queries.get_reconciliation(session, bob, reconciliation_id=run["id"])


def test_of_two_runs_at_once_one_is_refused_and_the_day_is_as_after_one(
    engine_of: Callable[[str], sa.Engine], make_own_channel: str
) -> None:
    started, go_on, outcomes = threading.Event(), threading.Event(), []
    engine = engine_of("ledger")
    with Session(engine) as session:
        add_order(session, f"{make_own_channel}-1", at=NOON, channel=make_own_channel)
        session.commit()

    def first() -> None:
        with Session(engine) as session:
            outcomes.append(_reconcile_within_call(session, make_own_channel))
            started.set()
            go_on.wait(20)
            session.commit()

    thread = threading.Thread(target=first)
    thread.start()
    assert started.wait(20)
    with Session(engine) as session, pytest.raises(ReconciliationRunning):
        reconcile(session, DAY, channel=make_own_channel)
    with Session(engine) as session:  # another day of the same channel does not wait
        reconcile(session, DAY - timedelta(days=1), channel=make_own_channel)
    go_on.set()
    thread.join()
    with Session(engine) as session:
        assert reconcile(session, DAY, channel=make_own_channel)["previous_id"] == outcomes[0]["id"]
        query = sa.text("select count(*) from mismatches where channel = :channel")
        assert session.scalar(query, {"channel": make_own_channel}) == 1


def _reconcile_within_call(session: Session, channel: str) -> Any:
    from shared.rpc.wire import Call, current_call

    current_call.set(Call(service="tests", method="run_test", passport=ALICE, arguments={}))
    return reconcile(session, DAY, channel=channel)


@pytest.fixture
def make_own_channel(engine_of: Callable[[str], sa.Engine]) -> Any:
    """A channel of this test's own, in a database that is committed to; gone at the end with what names it."""
    code = "concurrent"
    with Session(engine_of("ledger")) as session:
        add_channel(session, code)
        session.commit()
    yield code
    with Session(engine_of("ledger")) as session:
        for statement in (
            "delete from mismatch_sightings where mismatch_id in (select id from mismatches where channel = :c)",
            "delete from mismatch_history where mismatch_id in (select id from mismatches where channel = :c)",
            "delete from mismatches where channel = :c",
            "delete from reconciliations where channel = :c",
            "delete from orders where channel = :c",
            "delete from channels where code = :c",
            "delete from outbox",
        ):
            session.execute(sa.text(statement), {"c": code} if ":c" in statement else {})
        session.commit()
