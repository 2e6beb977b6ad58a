"""Callbacks and raw answers are forgotten when they are old, except what is still needed."""

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from services.ledger.usecases.forgetting import forget_upstream_messages
from shared.contracts.settings import PARAMETERS
from shared.times import duration_seconds
from tests.services.ledger.platform import QueryApi, payment
from tests.services.ledger.test_callbacks import CallbackBooks, books, platform

__all__ = ["books", "platform"]  # the fixtures

KEPT = timedelta(days=30)


def age(books: CallbackBooks, days: int = 31) -> None:
    """Have all that is there have come so many days ago."""
    with books.engine.begin() as connection:
        for table, column in (("callbacks", "received_at"), ("upstream_answers", "asked_at")):
            connection.execute(sa.text(f"update {table} set {column} = {column} - make_interval(days => {days})"))


def kept(books: CallbackBooks) -> tuple[list[Any], list[Any]]:
    notes = books.rows("select order_no from callbacks order by received_at")
    return [n for (n,) in notes], [n for (n,) in books.rows("select order_no from upstream_answers order by id")]


def settled(books: CallbackBooks, platform: QueryApi) -> str:
    number = books.order(channel="askable")
    platform.payments.append(payment(number))
    assert books.receive(payment(number), code="askable")["outcome"] == "settled"
    return number


@pytest.fixture(autouse=True)
def _no_mismatches(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("truncate mismatches cascade"))


def mismatch(books: CallbackBooks, number: str, status: str) -> None:
    with books.engine.begin() as connection:
        connection.execute(sa.text("set local session_replication_role = replica"))  # no run found it
        connection.execute(
            sa.text(
                "insert into mismatches"
                " (id, channel, day, kind, status, order_no, currency, difference, found_by, seen_by) values"
                " ('mis_1', 'askable', current_date, 'amount_mismatch', :status, :number, 'CNY', 0, 'run', 'run')"
            ),
            {"status": status, "number": number},
        )


def test_what_is_old_goes_and_is_told_and_what_is_young_stays(books: CallbackBooks, platform: QueryApi) -> None:
    old = [settled(books, platform) for _ in range(5)]
    age(books)
    young = settled(books, platform)
    assert forget_upstream_messages(books, kept=KEPT, page_rows=2) == 10
    assert kept(books) == ([young], [young])
    told = books.rows(
        "select envelope::json -> 'payload' ->> 'kind', (envelope::json -> 'payload' ->> 'count')::int from outbox"
        " where routing_key = 'ledger.UpstreamMessagesForgotten' order by id"
    )
    assert told == [(kind, count) for kind in ("callbacks", "upstream_answers") for count in (2, 2, 1)]
    assert forget_upstream_messages(books, kept=KEPT) == 0
    assert [books.status(number) for number in old] == ["settled"] * 5


def test_callback_that_comes_again_after_its_note_is_gone_credits_nothing(
    books: CallbackBooks, platform: QueryApi
) -> None:
    number = settled(books, platform)
    age(books)
    forget_upstream_messages(books, kept=KEPT)
    assert books.receive(payment(number), code="askable")["outcome"] == "already"
    assert books.rows("select count(*) from entries") == [(1,)]


def test_pending_order_keeps_its_callbacks_and_the_last_answer(books: CallbackBooks, platform: QueryApi) -> None:
    number = books.order(channel="askable")
    for _ in range(3):
        assert books.receive(payment(number), code="askable")["outcome"] == "not_confirmed"
    [last] = books.rows("select max(id) from upstream_answers")
    gone = settled(books, platform)
    age(books)
    assert forget_upstream_messages(books, kept=KEPT, page_rows=1) == 4
    assert kept(books) == ([number] * 3, [number])
    assert books.rows("select id from upstream_answers") == [last]
    assert books.status(gone) == "settled"


@pytest.mark.parametrize(
    ("status", "is_kept"), [("open", True), ("pending_approval", True), ("reconciled", False), ("ignored", False)]
)
def test_open_mismatch_keeps_all_of_its_order(
    books: CallbackBooks, platform: QueryApi, status: str, is_kept: bool
) -> None:
    number = settled(books, platform)
    mismatch(books, number, status)
    age(books)
    forget_upstream_messages(books, kept=KEPT)
    assert kept(books) == (([number], [number]) if is_kept else ([], []))


def test_database_keeps_what_may_be_delivered_again_whatever_it_is_told(books: CallbackBooks) -> None:
    with pytest.raises(DBAPIError, match="seven days"):
        forget_upstream_messages(books, kept=timedelta(days=6))
    assert PARAMETERS["ledger.callback_retention"].minimum == "7d"
    assert duration_seconds("7d") > 2 * 5 * 60 + 3 * 86_400  # tolerance both ways, and three days of delivering again


def test_of_two_processes_one_forgets(books: CallbackBooks, platform: QueryApi) -> None:
    settled(books, platform)
    age(books)
    with books.engine.begin() as connection:
        connection.execute(sa.text("select pg_advisory_xact_lock(hashtext('forget_callbacks'))"))
        assert forget_upstream_messages(books, kept=KEPT) == 0
    assert forget_upstream_messages(books, kept=KEPT) == 2
