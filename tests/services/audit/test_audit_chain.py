"""The hash chain: what is sealed holds, and every kind of touch is named, on the database as a superuser does it."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from services.audit import models, usecases, verification
from services.audit.domain.chain import GENESIS, Head, hash_of, seal
from services.audit.domain.rows import contents_of
from services.audit.verification import verify_chain
from shared.errors import PermissionDenied
from shared.passport import Passport
from shared.times import rfc3339
from tests.services.audit.envelopes import api_call, balances_changed, entry, envelope, some_day


def test_hash_is_sha_256_of_the_hash_before_and_the_canonical_row() -> None:
    event = envelope(payload={"changes": {"a": {"before": "é", "after": 1}}})
    first, second = seal(Head(0, GENESIS), contents_of(event))
    assert (first.content["seq"], second.content["seq"]) == (1, 2)
    assert (first.prev_hash, second.prev_hash) == (bytes(32), first.hash)
    canonical = json.dumps(second.content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert second.hash == hashlib.sha256(first.hash + canonical).digest()


@pytest.fixture
def chain(session: Session, record: Callable[..., int]) -> Session:
    """Ten rows in three batches over ten days, of every type."""
    record(*(envelope(at=some_day(day), payload={"reason": f"why {day}"}) for day in (1, 2, 3)))
    record(api_call(at=some_day(4)), envelope("SystemErrorOccurred", "cards", at=some_day(5), payload={"error": "x"}))
    record(
        balances_changed([entry(1), entry(2), entry(3)], at=some_day(6)),
        envelope(at=some_day(10), payload={"changes": {"status": {"before": "a", "after": "b"}}}),
    )
    return session


def tamper(session: Session, statement: str, **values: Any) -> None:
    assert session.execute(text(statement), values).rowcount >= 1  # type: ignore[attr-defined]


def breaks(session: Session, passport: Passport, **span: Any) -> list[tuple[str, int, int]]:
    report = verify_chain(session, passport, **span)
    assert report["ok"] == (not report["broken"])
    assert report["first_broken"] == (report["broken"][0] if report["broken"] else None)
    return [(b["kind"], b["seq"], b["seq_last"]) for b in report["broken"]]


def test_untouched_chain_holds(chain: Session, alice: Passport) -> None:
    report = verify_chain(chain, alice)
    assert report == {"ok": True, "checked": 10, "first_broken": None, "broken": [], "next_seq": None}


def test_empty_chain_holds(session: Session, alice: Passport) -> None:
    assert verify_chain(session, alice)["ok"]
    assert verify_chain(session, alice, from_time=rfc3339(some_day(1)), to_time=rfc3339(some_day(2)))["ok"]


@pytest.mark.parametrize(
    "change",
    [
        "reason = 'because'",
        "actor_name = 'Mallory'",
        "time = time + interval '1 microsecond'",
        "time = time - interval '10 days'",
        "merchant_id = null",
        "details = '{\"a\": 1}'",
        "outcome = 'failed'",
        "event_id = 'f'",
        "part = 7",
        "hash = decode(repeat('ab', 32), 'hex')",
        "prev_hash = decode(repeat('ab', 32), 'hex')",
    ],
)
def test_changed_row_is_found_in_any_column(chain: Session, alice: Passport, change: str) -> None:
    tamper(chain, f"update log_rows set {change} where seq = 3")
    assert breaks(chain, alice)[0] == ("changed", 3, 3)


def test_changed_row_that_was_hashed_again_is_found_by_the_row_after_it(chain: Session, alice: Passport) -> None:
    row = chain.execute(text(f"select {models.SELECTED} from log_rows l where seq = 3")).mappings().one()
    link = models.link_of(row)
    link.content["reason"] = "because"
    forged = hash_of(link.prev_hash, link.content)
    tamper(chain, "update log_rows set reason = 'because', hash = :hash where seq = 3", hash=forged)
    assert breaks(chain, alice) == [("changed", 4, 4)]


def test_removed_rows_are_found_and_the_rest_is_checked_on(chain: Session, alice: Passport) -> None:
    tamper(chain, "delete from log_rows where seq in (4, 5)")
    tamper(chain, "update log_rows set message = '' where seq = 8")
    assert breaks(chain, alice) == [("removed", 4, 5), ("changed", 8, 8)]


def test_removed_first_row_is_found(chain: Session, alice: Passport) -> None:
    tamper(chain, "delete from log_rows where seq = 1")
    assert breaks(chain, alice) == [("removed", 1, 1)]


def test_cut_off_tail_is_found(chain: Session, alice: Passport) -> None:
    tamper(chain, "delete from log_rows where seq >= 8")
    assert breaks(chain, alice) == [("cut_off", 8, 10)]


def test_emptied_log_is_found(chain: Session, alice: Passport) -> None:
    tamper(chain, "delete from log_rows")
    assert breaks(chain, alice) == [("cut_off", 1, 10)]


def test_head_that_was_set_back_with_the_tail_cut_off_holds_together(chain: Session, alice: Passport) -> None:
    # What no chain can tell by itself: docs/logs.md says so, and that a report kept elsewhere does.
    tamper(chain, "delete from log_rows where seq >= 8")
    tamper(chain, "update chain_state set last_seq = 7, last_hash = (select hash from log_rows where seq = 7)")
    assert breaks(chain, alice) == []


def test_head_that_was_set_back_alone_is_found(chain: Session, alice: Passport) -> None:
    tamper(chain, "update chain_state set last_seq = 7, last_hash = (select hash from log_rows where seq = 7)")
    assert breaks(chain, alice) == [("inserted", 8, 10)]


def test_lost_head_is_found(chain: Session, alice: Passport) -> None:
    tamper(chain, "delete from chain_state")
    assert breaks(chain, alice) == [("inserted", 1, 10)]


def insert_copy(session: Session, seq: int, as_seq: int) -> None:
    """Put a row in that copies another, as somebody would who forges one."""
    columns = ", ".join(c for c in models.COLUMNS if c not in ("seq", "event_id"))
    tamper(
        session,
        f"insert into log_rows (seq, event_id, {columns})"
        f" select :as_seq, 'forged', {columns} from log_rows where seq = :seq",
        seq=seq,
        as_seq=as_seq,
    )


def test_row_inserted_beside_another_is_found(chain: Session, alice: Passport) -> None:
    insert_copy(chain, 2, as_seq=5)
    kinds = breaks(chain, alice)
    assert ("inserted", 5, 5) in kinds
    assert kinds[0][1] == 5


def test_row_inserted_beyond_the_end_is_found(chain: Session, alice: Passport) -> None:
    insert_copy(chain, 2, as_seq=11)
    assert breaks(chain, alice) == [("inserted", 11, 11)]


def test_break_names_the_row(chain: Session, alice: Passport) -> None:
    tamper(chain, "update log_rows set message = 'x' where seq = 7")
    broken = verify_chain(chain, alice)["first_broken"]
    event_id, part = chain.execute(text("select event_id, part from log_rows where seq = 7")).one()
    assert broken is not None
    assert (broken["id"], broken["time"]) == (f"{event_id}-{part}", rfc3339(some_day(6)))


DAYS_2_TO_6 = {"from_time": rfc3339(some_day(2, 0)), "to_time": rfc3339(some_day(7, 0))}


def test_range_checks_its_rows_with_the_ones_beside_it(chain: Session, alice: Passport) -> None:
    report = verify_chain(chain, alice, **DAYS_2_TO_6)
    assert (report["ok"], report["checked"]) == (True, 9)


@pytest.mark.parametrize("removed", [(2,), (8,), (2, 3), (3, 4, 5), (2, 3, 4, 5, 6, 7, 8)])
def test_rows_removed_from_a_range_or_its_edges_are_found(
    chain: Session, alice: Passport, removed: tuple[int, ...]
) -> None:
    tamper(chain, "delete from log_rows where seq = any(:seqs)", seqs=list(removed))
    assert breaks(chain, alice, **DAYS_2_TO_6) == [("removed", removed[0], removed[-1])]


def test_long_chain_is_checked_in_calls_that_go_on_where_the_last_ended(
    chain: Session, alice: Passport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "ROWS_PER_CALL_MAX", 4)
    monkeypatch.setattr(verification, "ROWS_PER_READ", 3)
    tamper(chain, "update log_rows set message = '' where seq = 5")
    reports, seq = [], None
    while not reports or seq is not None:
        reports.append(verify_chain(chain, alice, from_seq=seq))
        seq = reports[-1]["next_seq"]
    assert [(r["ok"], r["checked"], r["next_seq"]) for r in reports] == [(True, 4, 5), (False, 4, 9), (True, 2, None)]


def test_somebody_who_sees_some_merchants_may_not_check_the_chain(chain: Session, bob: Passport) -> None:
    with pytest.raises(PermissionDenied):
        verify_chain(chain, bob)


def test_rows_written_after_a_check_began_are_no_break(chain: Session, alice: Passport) -> None:
    usecases.record_events(chain, [envelope(at=some_day(3))])  # an event that came late: its time is not the newest
    assert verify_chain(chain, alice)["checked"] == 11
    assert breaks(chain, alice, **DAYS_2_TO_6) == []
