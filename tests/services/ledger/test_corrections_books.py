"""When all that did not fit is corrected, whichever way, every daily check is right, on the day that it is about."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.thresholds import Threshold
from services.ledger.queries.daily_checks import read_daily_checks
from services.ledger.queries.figures import read_monthly_figures
from shared.contracts.mismatches import NotCorrectable
from shared.times import utc_now
from tests.conftest import AURORA
from tests.services.ledger.mismatches import (
    add_world,
    assert_books_are_right,
    correct,
    found,
    paid,
    reconcile_all,
    record,
    reverse,
)
from tests.services.ledger.orders import ALICE, create, fail, fund, refund
from tests.services.ledger.test_orders_properties import archive

DAYS = 3


@pytest.fixture
def books(session_of: Callable[[str], Session]) -> Session:
    """A ledger in which three days have mismatches of every kind, between orders that fit."""
    session = session_of("ledger")
    add_world(session)
    fund(session, "5000.00", channel="cash", order_no="not-of-a-platform")
    for back in range(DAYS):
        at = utc_now() - timedelta(days=back)
        # Settled today and paid there before: the platform's record counts on its order's day.
        fits = paid(session, kind="recharge")
        record(session, fits["order_no"], at=utc_now())
        for kind in ("recharge", "payment", "purchase", "withdraw"):
            record(session, create(session, kind=kind)["order_no"], at=at, amount=1000 + back)
            record(session, paid(session, kind=kind)["order_no"], at=at, amount=700 + back)
            record(session, paid(session, kind=kind)["order_no"], at=at, status="failed")
            record(session, paid(session, kind=kind)["order_no"], at=at, status="refunded")
            failed = create(session, kind=kind)
            fail(session, failed["order_no"])
            record(session, failed["order_no"], at=at)
            paid(session, kind=kind)
        partly = paid(session, kind="payment")
        refund(session, partly["order_no"], "4.00")
        wholly = paid(session, kind="payment")
        refund(session, wholly["order_no"])
        record(session, wholly["order_no"], at=at)
        twice = paid(session, kind="recharge")
        record(session, twice["order_no"], at=utc_now())
        record(session, twice["order_no"], at=utc_now())
        record(session, f"nobodys-{back}", at=at)
        record(session, None, at=at)
    reconcile_all(session, days=DAYS)
    return session


def checks(session: Session) -> list[Any]:
    """Return the checks of all days that are not right, but for the card of money that came past the platform."""
    today = datetime.now(UTC).date()
    return [
        check | {"date": day}
        for day in (today - timedelta(days=back) for back in range(DAYS + 1))
        for check in read_daily_checks(session, ALICE, day=day, zone_name="UTC", threshold=Threshold("10000.00"))[
            "items"
        ]
        if not check["ok"] and check["channel"] != "cash"
    ]


def correct_all(session: Session, to: Callable[[], str]) -> int:
    corrected = 0
    for mismatch in found(session, "open"):
        direction = to()
        savepoint = session.begin_nested()
        try:
            correct(session, mismatch["id"], direction, merchant_id=AURORA, user_id="user-1", kind="recharge")
            savepoint.commit()
        except NotCorrectable:
            assert mismatch["kind"] == "duplicate_upstream"
            savepoint.rollback()
            correct(session, mismatch["id"], "local")
        corrected += 1
    return corrected


@pytest.mark.parametrize(
    "directions", [["upstream"], ["local"], ["upstream", "local"], ["local", "upstream", "upstream"]]
)
def test_after_correcting_all_every_check_of_every_day_is_right(books: Session, directions: list[str]) -> None:
    assert checks(books) != []
    kinds = {mismatch["kind"] for mismatch in found(books, "open")}
    assert len(kinds) == 6
    wanted = itertools.cycle(directions)
    assert correct_all(books, lambda: next(wanted)) >= 80
    assert checks(books) == []
    reconcile_all(books, days=DAYS + 1)
    assert found(books, "open") == []
    assert_books_are_right(books)


def test_after_taking_all_back_every_check_is_as_it_was(books: Session) -> None:
    before = checks(books)
    correct_all(books, lambda: "upstream")
    for mismatch in found(books, "corrected"):
        reverse(books, mismatch["id"])
    assert checks(books) == before
    standing = "select count(*) from corrections where status = 'applied' and reversal_of is null"
    assert books.scalar(sa.text(standing)) == 0
    assert_books_are_right(books)


def test_figures_of_a_month_stay_when_its_entries_leave_the_log(books: Session) -> None:
    correct_all(books, lambda: "upstream")
    before = figures(books)
    archive(books)
    assert books.scalar(sa.text("select count(*) from entries")) == 0
    assert figures(books) == before
    assert before[0]["recharge"] != "0"


def figures(session: Session) -> Any:
    months = {(datetime.now(UTC).date() - timedelta(days=back)).replace(day=1) for back in range(DAYS)}
    return [
        row
        for first in sorted(months, reverse=True)
        for row in read_monthly_figures(session, ALICE, first=first, zone_name="UTC")["items"]
    ]
