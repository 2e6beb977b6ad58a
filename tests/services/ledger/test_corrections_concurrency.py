"""Many decide on corrections at once, with real connections and real commits: each takes effect once."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.mismatches import Verb
from services.ledger.queries.mismatches import get_mismatch
from services.ledger.usecases import corrections, mismatches
from services.ledger.usecases.correction_sides import NO_TERMS
from shared.contracts.mismatches import CorrectionNotApplied, MismatchNotOpen, NoProposal, ProposalPending
from tests.conftest import person
from tests.services.ledger.conftest import Books
from tests.services.ledger.mismatches import (
    ALWAYS_WAITS,
    CHANNEL,
    TERMS,
    WHY,
    act,
    approve,
    assert_books_are_right,
    correct,
    found,
    paid,
    reconcile_all,
    record,
    reject,
    says,
)
from tests.services.ledger.orders import ALICE, account, fund, in_calls, refund
from tests.services.ledger.test_orders_concurrency import at_once, told
from tests.services.ledger.worlds import add_channel


def mismatches_of(books: Books, count: int, *, user_id: str = "user-1") -> list[str]:
    """Have payments of 10.00 of which the platform says 9.00. Returns: the mismatches."""
    books.run(lambda session: fund(session, "1000.00", user_id=user_id))
    for _ in range(count):
        books.run(
            lambda session: record(session, paid(session, kind="payment", user_id=user_id)["order_no"], amount=900)
        )
    books.run(reconcile_all)
    return [m["id"] for m in books.run(lambda session: found(session, "open"))]


def posted(books: Books) -> Counter[int]:
    with books.engine.connect() as connection:
        return Counter(connection.execute(sa.text("select type from entries")).scalars())


def test_one_proposal_that_many_approve_at_once_is_applied_once(books: Books) -> None:
    books.run(lambda session: add_channel(session, CHANNEL))
    waiting = mismatches_of(books, 5)
    for mismatch_id in waiting:
        books.run(lambda session, m=mismatch_id: correct(session, m, terms=ALWAYS_WAITS))
    approvers = [person(f"Approver{n}", "administrator", None) for n in range(6)]
    decide = in_calls(books, lambda session, item: approve(session, item[0], passport=item[1]))
    outcomes = at_once(decide, [(mismatch_id, somebody) for mismatch_id in waiting for somebody in approvers])
    assert Counter(type(outcome) for outcome in outcomes) == {dict: 5, NoProposal: 25}
    assert posted(books)[326] == 5
    assert (told(books, "CorrectionApproved"), told(books, "CorrectionApplied")) == (5, 5)
    assert books.run(account) == (100_000 - 5 * 900, 0)
    books.run(assert_books_are_right)


def test_approving_rejecting_and_editing_at_once_does_one_of_them(books: Books) -> None:
    books.run(lambda session: add_channel(session, CHANNEL))
    waiting = mismatches_of(books, 8)
    for mismatch_id in waiting:
        books.run(lambda session, m=mismatch_id: correct(session, m, terms=ALWAYS_WAITS))
    carol = person("Carol", "administrator", None)

    def decide(session: Any, item: tuple[str, str]) -> Any:
        mismatch_id, verb = item
        if verb == "approve":
            return approve(session, mismatch_id, passport=carol)
        if verb == "take back":
            return act(session, mismatch_id, Verb.REOPEN)
        return reject(session, mismatch_id, passport=carol)

    outcomes = at_once(
        in_calls(books, decide), [(m, verb) for m in waiting for verb in ("approve", "reject", "take back") * 2]
    )
    assert sum(isinstance(outcome, dict) for outcome in outcomes) == 8
    with books.engine.connect() as connection:
        by_status = dict(connection.execute(sa.text("select status, count(*) from corrections group by 1")).all())
    assert sum(by_status.values()) == 8
    assert posted(books).get(326, 0) == by_status.get("applied", 0)
    books.run(assert_books_are_right)


def test_one_correction_that_many_reverse_at_once_is_reversed_once(books: Books) -> None:
    books.run(lambda session: add_channel(session, CHANNEL))
    [mismatch_id] = mismatches_of(books, 1)
    done = books.run(lambda session: correct(session, mismatch_id))["corrections"][0]["id"]
    take_back = in_calls(
        books,
        lambda session, _: corrections.reverse_correction(
            session, ALICE, correction_id=done, reason="A mistake.", terms=TERMS
        ),
    )
    outcomes = at_once(take_back, range(12))
    assert Counter(type(outcome) for outcome in outcomes) == {dict: 1, CorrectionNotApplied: 11}
    assert posted(books)[326] == 2
    assert books.run(account) == (99_000, 0)
    books.run(assert_books_are_right)


def test_corrections_in_bulk_and_one_by_one_and_refunds_at_once_never_wait_in_a_ring(books: Books) -> None:
    books.run(lambda session: add_channel(session, CHANNEL))
    open_ones = [*mismatches_of(books, 6, user_id="user-1"), *mismatches_of(books, 6, user_id="user-2")]
    open_ones = list(dict.fromkeys(open_ones))
    with books.engine.connect() as connection:
        numbers = connection.execute(sa.text("select order_no from orders order by order_no desc")).scalars().all()

    def bulk(session: Any, ids: list[str]) -> Any:
        return mismatches.act_on_mismatches(
            session,
            ALICE,
            ids=ids,
            act=lambda batch, mismatch_id: corrections.correct_mismatch(
                session,
                ALICE,
                batch,
                mismatch_id=mismatch_id,
                to="upstream",
                reason=WHY,
                new_order=NO_TERMS,
                terms=TERMS,
            ),
            is_of_money=True,
        )

    def do(session: Any, item: tuple[str, Any]) -> Any:
        kind, what = item
        if kind == "bulk":
            return bulk(session, what)
        return correct(session, what) if kind == "correct" else refund(session, what, "1.00")

    work = [("bulk", open_ones), ("bulk", open_ones[::-1])]
    work += [("correct", mismatch_id) for mismatch_id in open_ones[::-1]] + [("refund", number) for number in numbers]
    outcomes = at_once(in_calls(books, do), work, threads=12)
    assert not [outcome for outcome in outcomes if isinstance(outcome, ProposalPending | MismatchNotOpen)]
    assert posted(books)[326] == 12
    assert books.run(lambda session: found(session, "open")) == []
    books.run(assert_books_are_right)


def test_proposal_that_is_made_while_its_mismatch_heals_is_void(books: Books) -> None:
    books.run(lambda session: add_channel(session, CHANNEL))
    order_no = books.run(paid)["order_no"]
    books.run(reconcile_all)
    [mismatch] = books.run(lambda session: found(session, "open"))
    with Session(books.engine) as proposing:
        correct(proposing, mismatch["id"], terms=ALWAYS_WAITS)
        ref = books.run(lambda session: record(session, order_no))
        with ThreadPoolExecutor(1) as pool:
            healing = pool.submit(in_calls(books, lambda session, days: reconcile_all(session, days=days)), 1)
            wait_for_a_lock(books)
            proposing.commit()
            healing.result(30)
    after = books.run(lambda session: get_mismatch(session, ALICE, mismatch_id=mismatch["id"]))
    assert (after["status"], [c["status"] for c in after["corrections"]]) == ("reconciled", ["void"])
    books.run(lambda session: says(session, ref, order_no="another"))
    books.run(lambda session: act(session, mismatch["id"], Verb.REOPEN))
    waiting = books.run(lambda session: correct(session, mismatch["id"], terms=ALWAYS_WAITS))
    assert waiting["status"] == "pending_approval"


def wait_for_a_lock(books: Books) -> None:
    """Return when somebody of this ledger waits for a lock of somebody else's."""
    waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    for _ in range(3000):
        with books.engine.connect() as connection:
            if connection.scalar(sa.text(waiting)):
                return
        time.sleep(0.01)
    raise AssertionError("nobody waits")
