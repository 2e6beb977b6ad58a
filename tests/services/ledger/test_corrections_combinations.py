"""Every kind and status of an order against everything that a platform may say of it, corrected both ways.

However it comes out, the next reconciliation finds nothing, every daily check is right, no account is below what it
holds, and taking all of it back leads to where it began.
"""

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.thresholds import Threshold
from services.ledger.queries.daily_checks import read_daily_checks
from shared.contracts.ledger import InsufficientBalance
from shared.contracts.mismatches import MismatchOutdated, NotCorrectable
from shared.errors import InvalidRequest
from shared.times import utc_now
from tests.conftest import AURORA
from tests.services.ledger.mismatches import (
    add_world,
    assert_books_are_right,
    correct,
    reconcile_all,
    record,
    reverse,
)
from tests.services.ledger.orders import ALICE, account, create, fail, fund, refund, settle

DAYS = 3
pytestmark = pytest.mark.timeout(400)  # a hundred orders, lived, corrected and taken back
KINDS = ("recharge", "withdraw", "payment", "purchase", "renewal", "paid_reset")
REFUNDABLE = ("payment", "purchase", "renewal", "paid_reset")
STATUSES = ("absent", "pending", "failed", "settled", "partially_refunded", "refunded")
SAID = [
    (),
    *(((status, amount, "CNY"),) for status in ("success", "refunded") for amount in (1000, 400, 1400, 0)),
    (("success", 1000, "USD"),),
    (("pending", 1000, "CNY"),),
    (("failed", 1000, "CNY"),),
    (("success", 1000, "CNY"), ("success", 1000, "CNY")),
    (("success", 700, "CNY"), ("success", 1000, "CNY")),
    (("failed", 1000, "CNY"), ("success", 1000, "CNY")),
    (("refunded", 1000, "CNY"), ("success", 1000, "CNY")),
]


class Case(NamedTuple):
    """An order of 10.00 CNY, and the records of it; all of one instant, as of a statement that tells only the day."""

    number: int
    kind: str
    status: str
    said: tuple[tuple[str, int, str], ...]

    @property
    def order_no(self) -> str:
        """Return the order's number."""
        return f"c{self.number}"

    @property
    def user_id(self) -> str:
        """Return whose order it is: each has an account of its own."""
        return f"u{self.number}"


def cases_of(kind: str) -> Iterator[Case]:
    numbers = itertools.count()
    for status, said in itertools.product(STATUSES, SAID):
        if status.endswith("refunded") and kind not in REFUNDABLE:
            continue
        if status != "absent" or said:
            yield Case(next(numbers), kind, status, said)


def live(session: Session, case: Case) -> None:
    """Have an order of the case, and what the platform says of it."""
    fund(session, "100.00", user_id=case.user_id, channel="cash", order_no=f"cash-{case.number}")
    number, at = case.order_no, utc_now() - timedelta(days=case.number % 2 * (DAYS - 1))
    if case.status != "absent":
        create(session, order_no=number, kind=case.kind, user_id=case.user_id)
    if case.status == "failed":
        fail(session, number)
    if case.status in ("settled", "partially_refunded", "refunded"):
        settle(session, number)
    if case.status.endswith("refunded"):
        refund(session, number, "4.00" if case.status == "partially_refunded" else None)
    for status, amount, currency in case.said:
        record(session, number, status=status, amount=amount, currency=currency, at=at)


def spend(session: Session, case: Case) -> None:
    """Leave a user nothing that is available."""
    balance, held = account(session, case.user_id)
    if balance > held:
        free = balance - held
        fund(session, f"-{free // 100}.{free % 100:02}", type=323, user_id=case.user_id, channel="cash",
             order_no=f"spent-{case.number}-{balance}")  # fmt: skip


def state(session: Session, case: Case) -> Any:
    """Return what there is of a case: the order, the account, the records that count."""
    order = session.execute(
        sa.text(
            "select status, amount, refunded, held, settled_at, upstream_ref, fee"
            " from orders where order_no = :order_no"
        ),
        {"order_no": case.order_no},
    ).first()
    records = session.execute(
        sa.text(
            "select upstream_ref, status, amount, currency from upstream_records"
            " where order_no = :order_no and voided_by is null order by id"
        ),
        {"order_no": case.order_no},
    ).all()
    return order, account(session, case.user_id), records


def open_ones(session: Session) -> list[Any]:
    """Return the open mismatches; there may be more than a page of them."""
    query = sa.text("select id, kind, order_no, upstream_ref from mismatches where status = 'open' order by id")
    return [dict(row) for row in session.execute(query).mappings()]


def attempt(session: Session, act: Callable[[], Any], *refusals: type[Exception]) -> bool:
    """Return whether an act was done. What is refused changed nothing, which a command's transaction sees to."""
    savepoint = session.begin_nested()
    try:
        act()
    except refusals:
        savepoint.rollback()
        return False
    savepoint.commit()
    return True


def wrong_checks(session: Session) -> list[Any]:
    """Return the checks that are not right, but for the money that came past the platform."""
    today = datetime.now(UTC).date()
    return [
        check
        for back in range(DAYS)
        for check in read_daily_checks(
            session, ALICE, day=today - timedelta(days=back), zone_name="UTC", threshold=Threshold("10000.00")
        )["items"]
        if not check["ok"] and check["channel"] != "cash"
    ]


def assert_no_account_is_overdrawn(session: Session) -> None:
    query = sa.text("select holder_id from accounts where wallet = 'balance' and (balance < held or held < 0)")
    assert session.scalars(query).all() == []


class Books:
    """A ledger with all cases of a kind of orders in it, reconciled; each third order has a fee."""

    def __init__(self, session: Session, kind: str, *, is_spent: bool) -> None:
        self.session, self.cases = session, list(cases_of(kind))
        add_world(session)
        for case in self.cases:
            percent = "2.5" if case.number % 3 == 0 else "0"
            rate = "update channels set config = jsonb_build_object('fee_percent', cast(:percent as text))"
            session.execute(sa.text(rate), {"percent": percent})
            live(session, case)
            if is_spent:
                spend(session, case)
        self.reconcile()

    def reconcile(self) -> None:
        reconcile_all(self.session, days=DAYS)

    def case_of(self, mismatch: Any) -> Case:
        return self.cases[int(mismatch["order_no"].removeprefix("c"))]

    def states(self) -> list[Any]:
        return [state(self.session, case) for case in self.cases]

    def subjects(self) -> set[tuple[str, ...]]:
        """Return what is open of orders that were there."""
        those = [m for m in open_ones(self.session) if self.case_of(m).status != "absent"]
        return {(m["kind"], m["order_no"], m["upstream_ref"]) for m in those}

    def correct_all(self, to: str) -> list[Any]:
        """Correct all that is open, as far as that may be. Returns: what was corrected, in its order."""
        done = []
        for mismatch in open_ones(self.session):
            case = self.case_of(mismatch)
            whose: dict[str, Any] = {"merchant_id": AURORA, "user_id": case.user_id, "kind": case.kind}
            act = partial(correct, self.session, mismatch["id"], to, **whose)
            if attempt(self.session, act, NotCorrectable, MismatchOutdated, InvalidRequest, InsufficientBalance):
                done.append(mismatch)
        return done


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("to", ["upstream", "local"])
def test_whatever_differs_is_corrected_for_good_and_taken_back_for_good(
    session_of: Callable[[str], Session], kind: str, to: str
) -> None:
    session = session_of("ledger")
    books = Books(session, kind, is_spent=False)
    states, subjects, wrong = books.states(), books.subjects(), wrong_checks(session)
    done = books.correct_all(to)
    assert len(done) > 25
    left = {m["id"] for m in open_ones(session)}
    books.reconcile()
    again = [books.case_of(m) for m in open_ones(session) if m["id"] not in left]
    # Where the first of two records is set aside, the other one speaks.
    assert [case for case in again if to == "upstream" or len(case.said) == 1] == []
    while more := books.correct_all("local"):
        done += more
        books.reconcile()
    assert (open_ones(session), wrong_checks(session)) == ([], [])
    assert_no_account_is_overdrawn(session)
    assert_books_are_right(session)

    for mismatch in done[::-1]:
        reverse(session, mismatch["id"])
    for case, before, after in zip(books.cases, states, books.states(), strict=True):
        is_made = case.status == "absent" and after[0] is not None and after[0].status == "failed"
        assert after == (after[0], *before[1:]) if is_made else after == before, case
    if kind == "recharge":  # what an order of another kind was made for is not counted as a recharge any more
        assert wrong_checks(session) == wrong
    books.reconcile()
    assert books.subjects() == subjects
    assert_books_are_right(session)


@pytest.mark.parametrize("kind", ["recharge", "payment", "purchase"])
def test_what_was_spent_is_refused_on_either_way_and_nothing_is_lost(
    session_of: Callable[[str], Session], kind: str
) -> None:
    session = session_of("ledger")
    books = Books(session, kind, is_spent=True)
    states = books.states()
    done = books.correct_all("upstream")
    assert len(open_ones(session)) > 10
    assert_no_account_is_overdrawn(session)
    for case in books.cases:
        spend(session, case)
    back = {
        mismatch["order_no"]: attempt(session, partial(reverse, session, mismatch["id"]), InsufficientBalance)
        for mismatch in done[::-1]
    }
    assert set(back.values()) == {True, False}
    for case, before, after in zip(books.cases, states, books.states(), strict=True):
        if case.status != "absent" and back.get(case.order_no, True):
            assert (after[0], after[2]) == (before[0], before[2]), case
    assert_no_account_is_overdrawn(session)
    assert_books_are_right(session)
