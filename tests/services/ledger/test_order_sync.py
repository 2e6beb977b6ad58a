"""Pending orders are asked for where they can be, and follow what their platform says."""

from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa

from services.ledger.usecases import order_sync
from shared.errors import InvalidRequest, Unavailable
from shared.passport import Passport
from shared.rpc.wire import Call
from tests.conftest import AURORA, BOREALIS, person
from tests.services.ledger.channels import CIPHER
from tests.services.ledger.platform import QueryApi, payment
from tests.services.ledger.test_callbacks import CallbackBooks, books, platform

__all__ = ["books", "platform"]  # the fixtures

ALICE = person("Alice", "administrator", None)


def sync(books: CallbackBooks, *, passport: Passport = ALICE, seconds_left: float = 1e9, **more: Any) -> Any:
    call = Call(service="ledger", method="sync_order_statuses", passport=passport, arguments={}, deadline=seconds_left)
    arguments = {"older_than_seconds": 0, "limit": 200, "cursor": None} | more
    return order_sync.sync_order_statuses(books, CIPHER, call, allowed=books.allowed, **arguments)


@pytest.fixture(autouse=True)
def _endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Call, "seconds_left", property(lambda call: call.deadline))


def orders_of(books: CallbackBooks, count: int, **fields: Any) -> list[str]:
    return [books.order(channel="askable", **fields) for _ in range(count)]


def test_each_pending_order_follows_its_platform(books: CallbackBooks, platform: QueryApi) -> None:
    paid, failed, waiting, unknown, other = orders_of(books, 5)
    platform.payments = [
        payment(paid),
        payment(paid, upstream_ref="twice", time="2026-11-24T09:00:00Z"),
        payment(paid, upstream_ref="first-try", status="failed", time="2026-11-24T07:00:00Z"),
        payment(failed, status="failed"),
        payment(waiting, status="failed", time="2026-11-24T07:00:00Z"),
        payment(waiting, upstream_ref="second-try", status="pending"),
        payment(other, amount="9.00"),
    ]
    by_file = books.order(channel="alipay")
    found = sync(books)
    outcomes = {"settled": 1, "failed": 1, "noted": 1, "unpaid": 1, "mismatched": 1}
    assert (found["asked"], found["outcomes"]) == (5, outcomes)
    assert (found["unanswered"], found["unreachable"], found["next_cursor"]) == (0, [], None)
    statuses = [books.status(number) for number in (paid, failed, waiting, unknown, other, by_file)]
    assert statuses == ["settled", "failed", "pending", "pending", "pending", "pending"]
    assert books.rows(f"select upstream_ref from orders where order_no = '{paid}'") == [(f"up-{paid}",)]
    assert len(books.records()) == 7
    assert {source for *_, source in books.records()} == {"query"}
    assert books.rows("select actor_id, act from order_history where act = 'settle'") == [("channel:askable", "settle")]
    assert books.rows("select distinct asked_for from upstream_answers") == [("sync",)]


def test_answer_that_says_nothing_new_is_told_once(books: CallbackBooks, platform: QueryApi) -> None:
    [number] = orders_of(books, 1)
    platform.payments = [payment(number, amount="9.00")]
    for _ in range(3):
        assert sync(books)["outcomes"] == {"mismatched": 1}
    assert len(books.told()) == 1


def test_young_and_old_orders_and_those_of_disabled_channels_are_left_alone(
    books: CallbackBooks, platform: QueryApi
) -> None:
    young, old, right = orders_of(books, 3)
    with books.engine.begin() as connection:
        age = sa.text("update orders set created_at = now() - cast(:age as interval) where order_no = :n")
        connection.execute(age, [{"age": "31 days", "n": old}, {"age": "6 minutes", "n": right}])
    assert sync(books, older_than_seconds=300)["asked"] == 1
    assert platform.asked == [right]
    with books.engine.begin() as connection:
        connection.execute(sa.text("update channels set status = 'disabled' where code = 'askable'"))
    assert sync(books)["asked"] == 0
    assert young not in platform.asked


def test_pages_go_through_all_orders_once(books: CallbackBooks, platform: QueryApi) -> None:
    numbers = orders_of(books, 5)
    cursor: str | None = None
    for _ in range(3):
        found = sync(books, limit=2, cursor=cursor)
        cursor = found["next_cursor"]
    assert cursor is None
    assert Counter(platform.asked) == Counter(numbers)


def test_call_ends_when_its_time_does_and_goes_on_from_there(books: CallbackBooks, platform: QueryApi) -> None:
    numbers = orders_of(books, 3)
    found = sync(books, seconds_left=order_sync.SECONDS_LEFT_MIN - 1)
    assert (found["asked"], platform.asked) == (0, [])
    assert sync(books, cursor=found["next_cursor"])["asked"] == len(numbers)


def test_channel_that_does_not_answer_is_given_up_and_its_orders_wait(
    books: CallbackBooks, platform: QueryApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_sync, "ASKED_AT_ONCE", 1)
    numbers = orders_of(books, 8)
    platform.spoil = lambda headers, body: (500, headers, body)
    found = sync(books)
    assert (found["asked"], found["unanswered"]) == (5, 5)
    assert (found["unreachable"], found["outcomes"]) == (["askable"], {})
    platform.spoil = None
    platform.payments = [payment(number) for number in numbers]
    assert sync(books)["outcomes"] == {"settled": 8}


def test_only_orders_of_the_callers_merchants_are_asked_for(books: CallbackBooks, platform: QueryApi) -> None:
    [mine] = orders_of(books, 1)
    orders_of(books, 1, merchant_id=BOREALIS)
    assert sync(books, passport=person("Bob", "operator", frozenset({AURORA})))["asked"] == 1
    assert platform.asked == [mine]


def test_error_within_is_raised(books: CallbackBooks, platform: QueryApi, monkeypatch: pytest.MonkeyPatch) -> None:
    orders_of(books, 2)

    def stumble(*_: Any, **__: Any) -> Any:
        raise Unavailable

    monkeypatch.setattr(order_sync, "ask_channel", stumble)
    with pytest.raises(Unavailable):
        sync(books)


@pytest.mark.parametrize("arguments", [{"older_than_seconds": -1}, {"limit": 0}, {"limit": 201}, {"cursor": "x"}])
def test_arguments_out_of_range_are_refused(books: CallbackBooks, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        sync(books, **arguments)
