"""Many act on the same orders at once, with real connections and real commits: each act is effective once."""

import itertools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa

from services.ledger.gathering import Gatherer
from services.ledger.posting import Outcome, Posting
from shared.contracts.ledger import (
    InsufficientBalance,
    OrderNotPending,
    OrderNumberTaken,
    RefundedThroughOrder,
    RefundTooLarge,
)
from shared.passport import Passport
from shared.rpc.wire import Answer
from tests.services.ledger.conftest import Books, raw_change
from tests.services.ledger.orders import account, create, fail, fund, in_calls, refund, settle
from tests.services.ledger.test_ledger_concurrency import assert_proved, post_one


def at_once(work: Any, items: Any, *, threads: int = 20) -> list[Any]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


def counts(books: Books) -> dict[int, tuple[int, int]]:
    """Return how many entries of each type there are, and their sum."""
    with books.engine.connect() as connection:
        rows = connection.execute(sa.text("select type, count(*), sum(amount) from entries group by type")).all()
    return {row[0]: (row[1], int(row[2])) for row in rows}


def told(books: Books, name: str) -> int:
    query = sa.text("select count(*) from outbox where routing_key = :name")
    with books.engine.connect() as connection:
        return connection.execute(query, {"name": f"ledger.{name}"}).scalar_one()


def test_fifty_orders_settled_by_twenty_at_once_and_refunded_twice_at_once_move_once(books: Books) -> None:
    books.run(lambda session: fund(session, "500.00"))
    kinds = ("payment", "purchase", "renewal", "paid_reset", "payment")
    made = [books.run(lambda session, k=k: create(session, kind=k))["order_no"] for k in kinds * 10]
    settled = at_once(in_calls(books, settle), [number for number in made for _ in range(20)])
    assert Counter(outcome["status"] for outcome in settled) == {"settled": 1000}
    assert counts(books) == {321: (1, 50_000), 323: (20, -20_000), 331: (10, -10_000), 332: (10, -10_000),
                             233: (10, -10_000)}  # fmt: skip
    refunded = at_once(in_calls(books, refund), [number for number in made for _ in range(2)])
    assert Counter(outcome["status"] for outcome in refunded) == {"refunded": 100}
    found = counts(books)
    assert (found[324], found[333]) == ((30, 30_000), (20, 20_000))
    assert (told(books, "OrderSettled"), told(books, "OrderRefunded")) == (50, 50)
    assert books.run(account) == (50_000, 0)
    assert_proved(books)


def test_holds_and_changes_together_never_spend_a_balance_twice(books: Books, alice: Passport) -> None:
    books.run(lambda session: fund(session, "300.00"))
    processes: list[Gatherer[Posting, Outcome]] = [Gatherer() for _ in range(2)]
    hold = in_calls(books, lambda session, kind: create(session, kind=kind, amount="1.00"))
    kinds = itertools.cycle(["purchase", "renewal", "withdraw"])

    def spend(n: int) -> Any:
        if n % 2:
            return hold(next(kinds))
        return post_one(books, processes[n % 4 // 2], alice, raw_change(type=323, amount="-1.00"), f"k-{n}")

    outcomes = at_once(spend, range(500), threads=32)
    held = [outcome["order_no"] for outcome in outcomes if isinstance(outcome, dict)]
    spent = sum(isinstance(outcome, Answer) for outcome in outcomes)
    assert sum(isinstance(outcome, InsufficientBalance) for outcome in outcomes) == 200
    assert (len(held) + spent, books.run(account)) == (300, ((300 - spent) * 100, len(held) * 100))
    assert held
    assert spent
    assert_proved(books)
    settled = at_once(in_calls(books, settle), held)
    assert Counter(outcome["status"] for outcome in settled) == {"settled": len(held)}
    assert books.run(account) == (0, 0)
    assert_proved(books)


def test_settling_and_failing_at_once_does_one_of_the_two(books: Books) -> None:
    books.run(lambda session: fund(session, "200.00"))
    made = [books.run(lambda session: create(session, kind="purchase"))["order_no"] for _ in range(20)]
    act = in_calls(books, lambda session, item: item[0](session, item[1]))
    outcomes = at_once(act, [(verb, number) for number in made for verb in (settle, fail) * 3])
    assert all(isinstance(outcome, dict | OrderNotPending) for outcome in outcomes)
    with books.engine.connect() as connection:
        by_status = dict(connection.execute(sa.text("select status, count(*) from orders group by 1")).all())
    settled = by_status.get("settled", 0)
    assert settled + by_status.get("failed", 0) == 20
    assert (told(books, "OrderSettled"), told(books, "OrderFailed")) == (settled, 20 - settled)
    assert books.run(account) == (20_000 - 1_000 * settled, 0)
    assert_proved(books)


def test_partial_refunds_and_refunds_past_the_order_at_once_stop_at_what_was_paid(
    books: Books, alice: Passport
) -> None:
    books.run(lambda session: fund(session, "10.00"))
    order_no = books.run(create)["order_no"]
    books.run(lambda session: settle(session, order_no))
    give_back = in_calls(books, lambda session, amount: refund(session, order_no, amount))
    past = raw_change(type=333, amount="1.00", order_no=order_no)
    gatherer: Gatherer[Posting, Outcome] = Gatherer()
    outcomes = at_once(
        lambda n: give_back("1.00") if n % 2 else post_one(books, gatherer, alice, past, f"k-{n}"), range(60)
    )
    assert Counter(type(outcome) for outcome in outcomes) == {dict: 10, RefundTooLarge: 20, RefundedThroughOrder: 30}
    assert counts(books)[324] == (10, 1_000)
    assert_proved(books)


def test_one_number_is_given_to_one_order(books: Books) -> None:
    books.run(lambda session: fund(session, "1000.00"))
    make = in_calls(books, lambda session, kind: create(session, order_no="same", kind=kind))
    outcomes = at_once(make, ["purchase", "payment"] * 10)
    assert Counter(type(outcome) for outcome in outcomes) == {dict: 1, OrderNumberTaken: 19}
    assert_proved(books)


def test_orders_that_open_one_account_at_once_all_settle(books: Books) -> None:
    for user in range(5):
        made = [
            books.run(lambda session, u=user: create(session, kind="recharge", user_id=f"fresh-{u}"))["order_no"]
            for _ in range(8)
        ]
        settled = at_once(in_calls(books, settle), made, threads=8)
        assert [outcome["status"] for outcome in settled] == ["settled"] * 8
        assert books.run(lambda session, u=user: account(session, f"fresh-{u}")) == (8_000, 0)
    assert_proved(books)
