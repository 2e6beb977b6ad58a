"""Many act on the same orders at once, with real connections and real commits: each act is effective once."""

import itertools
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa

from services.ledger.gathering import Gatherer
from services.ledger.posting import Outcome, Posting
from services.ledger.usecases.card_transfers import transfer_card_money
from shared.contracts.ledger import (
    InsufficientBalance,
    OrderNotFound,
    OrderNotPending,
    OrderNumberTaken,
    OrderPostedBefore,
    RefundedThroughOrder,
    RefundTooLarge,
    SettledThroughOrder,
)
from shared.errors import Conflict
from shared.passport import Passport
from shared.rpc.wire import Answer
from tests.conftest import AURORA
from tests.services.ledger.conftest import THRESHOLD, Books, raw_change
from tests.services.ledger.orders import account, create, fail, fund, in_calls, refund, settle
from tests.services.ledger.test_ledger_concurrency import assert_proved, post_one

SETTLES = {"recharge": 321, "withdraw": 322, "payment": 323, "purchase": 331, "renewal": 332, "paid_reset": 233}


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


def test_number_moves_its_money_once_whether_a_change_or_an_order_comes_first(books: Books, alice: Passport) -> None:
    processes: list[Gatherer[Posting, Outcome]] = [Gatherer() for _ in range(2)]
    numbers = [f"both-{n}" for n in range(40)]
    act = in_calls(books, lambda session, item: item[0](session, order_no=item[1]))

    def make(session: Any, *, order_no: str) -> Any:
        return create(session, order_no=order_no, kind="recharge", amount="1.00")

    def one(item: tuple[int, Any, str]) -> Any:
        n, verb, number = item
        if verb is None:
            return post_one(books, processes[n % 2], alice, raw_change(amount="1.00", order_no=number))
        return act((verb, number))

    wanted = [(n, verb, number) for n, number in enumerate(numbers) for verb in (make, None, settle, None, settle)]
    random.Random(3).shuffle(wanted)  # a schedule
    outcomes = at_once(one, [*wanted, *((n, settle, number) for n, number in enumerate(numbers))], threads=16)

    refusals = (SettledThroughOrder, OrderNumberTaken, OrderNotFound, OrderPostedBefore)
    assert [o for o in outcomes if not isinstance(o, (dict, Answer, *refusals))] == []
    count = "select order_no, count(*) from entries where type = 321 group by 1"
    with books.engine.connect() as connection:
        by_number = dict(connection.execute(sa.text(count)).all())
        settled = connection.execute(sa.text("select count(*) from orders where status = 'settled'")).scalar_one()
    # Two changes of one number are two payments, as long as there is no order.
    changed = Counter(o.result["order_no"] for o in outcomes if isinstance(o, Answer))
    assert by_number == changed | dict.fromkeys((number for number in numbers if number not in changed), 1)
    assert settled == len(numbers) - len(changed)
    assert_proved(books)


def test_everything_at_once_leaves_nobody_short_and_moves_each_order_once(books: Books, alice: Passport) -> None:
    own: dict[str, Any] = {"user_id": None}
    books.run(lambda session: fund(session, "120.00", **own))
    kinds = ("purchase", "renewal", "withdraw", "payment", "paid_reset", "recharge")
    made = [
        books.run(
            lambda session, k=k: create(session, kind=k, amount="3.00", default_fee_percent="2.5", channel=None, **own)
        )["order_no"]
        for k in kinds * 4
    ]
    kind_of = dict(zip(made, kinds * 4, strict=True))
    recharges = {number for number, kind in kind_of.items() if kind == "recharge"}
    processes: list[Gatherer[Posting, Outcome]] = [Gatherer() for _ in range(2)]
    transfers = itertools.count()

    def move_to_card(session: Any, _number: str) -> Any:
        return transfer_card_money(
            session, alice, threshold=THRESHOLD, transfer_id=f"t-{next(transfers)}", merchant_id=AURORA,
            card_id="card-1", direction="top_up", amount="0.70", currency="CNY",
        )  # fmt: skip

    acts = [
        settle,
        settle,
        fail,
        refund,
        lambda session, number: refund(session, number, "0.01"),
        lambda session, number: refund(session, number, "1.99"),
        move_to_card,
        lambda session, _number: create(session, kind="purchase", amount="2.00", **own),
    ]
    bare = [
        {"type": 326, "amount": "-0.90", "reason": "sorry"},
        {"type": 323, "amount": "-0.50"},
        {"type": 333, "amount": "3.00"},
        {"type": None, "amount": "-3.00"},  # what the order itself settles by
        {"type": 324, "amount": "0.01"},
    ]
    act = in_calls(books, lambda session, item: item[0](session, item[1]))
    rng = random.Random(11)  # a schedule
    wanted = [(rng.choice([*acts, *bare]), rng.choice(made)) for _ in range(600)]

    def one(n: int) -> Any:
        what, number = wanted[n]
        if not isinstance(what, dict):
            return act((what, number))
        fields = what | ({"order_no": number} if what["type"] != 323 else {}) | own
        if what["type"] is None:
            fields |= {"type": SETTLES[kind_of[number]], "amount": "3.00" if number in recharges else "-3.00"}
        raw = raw_change(**fields)
        return post_one(books, processes[n % 2], alice, raw, f"k-{n}")

    outcomes = at_once(one, range(600), threads=16)

    broken = [o for o in outcomes if not isinstance(o, dict | Answer | Conflict)]
    assert broken == []
    assert_proved(books)
    with books.engine.connect() as connection:
        rows = connection.execute(
            sa.text(
                "select o.kind, o.status, o.amount, o.fee, o.refunded,"
                " (select coalesce(sum(amount), 0) from entries e where e.order_no = o.order_no"
                "  and type in (324, 333)),"
                " array(select type from entries e where e.order_no = o.order_no"
                "  and type not in (324, 326, 333) order by 1),"
                " (select count(*) from order_history h where h.order_id = o.id and act in ('settle', 'fail'))"
                " from orders o"
            )
        ).all()
        free = connection.execute(sa.text("select min(balance - held) from accounts")).scalar_one()
        held = connection.execute(sa.text("select sum(held) from accounts")).scalar_one()
    assert free >= 0
    assert held == sum(row.amount + row.fee for row in rows if row.status == "pending" and row.kind in kinds[:3])
    for kind, status, amount, fee, refunded, given_back, types, ends in rows:
        is_paid = status in ("settled", "partially_refunded", "refunded")
        assert types == (sorted([SETTLES[kind], *([521] if fee else [])]) if is_paid else []), (kind, status)
        assert given_back == refunded <= amount
        assert ends == (0 if status == "pending" else 1)
    assert {row.status for row in rows} >= {"failed", "settled", "refunded"}
