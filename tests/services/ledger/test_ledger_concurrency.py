"""Many at once, with real connections and real commits: no wrong refusal, no negative balance, no gap, no deadlock."""

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.gathering import Gatherer
from services.ledger.posting import Outcome, Posting
from services.ledger.sums import fold_deltas
from services.ledger.usecases import postings as usecases
from services.ledger.verification import verify_ledger
from shared.contracts.ledger import InsufficientBalance
from shared.errors import IdempotencyInProgress, InternalError, ServiceError
from shared.passport import Passport
from shared.rpc.wire import Answer
from tests.conftest import AURORA
from tests.services.ledger.conftest import THRESHOLD, Books, batch, call_of, post_all, raw_change, single, view_in
from tests.services.ledger.conftest import change as checked_change


def post_one(
    books: Books,
    gatherer: Gatherer[Posting, Outcome],
    passport: Passport,
    raw: dict[str, Any],
    key: str | None = None,
) -> Answer | ServiceError:
    try:
        call = call_of(passport, key=key, **raw)
        return usecases.post_balance_change(books, gatherer, call, change=raw, threshold=THRESHOLD)
    except ServiceError as refusal:
        return refusal


def assert_proved(books: Books) -> None:
    view = books.run(lambda session: verify_ledger(session, mode="full"))
    assert view["faults"] == []


@pytest.mark.parametrize("gatherers", [1, 4], ids=["one process", "four processes"])
def test_32_clients_overdraw_one_account_by_exactly_what_it_lacks(
    books: Books, alice: Passport, gatherers: int
) -> None:
    books.run(lambda session: post_all(session, single(checked_change(amount="600.00"))))
    processes = [Gatherer[Posting, Outcome]() for _ in range(gatherers)]
    spend = [raw_change(type=323, amount="-1.00") for _ in range(1_000)]

    with ThreadPoolExecutor(32) as pool:
        outcomes = list(
            pool.map(lambda n: post_one(books, processes[n % gatherers], alice, spend[n], f"k-{n}"), range(1_000))
        )

    counted = Counter(type(outcome) for outcome in outcomes)
    assert counted == {Answer: 600, InsufficientBalance: 400}
    balances = sorted(int(float(o.result["balance"]) * 100) for o in outcomes if isinstance(o, Answer))
    assert balances == list(range(0, 60_000, 100))
    with books.engine.connect() as connection:
        assert connection.execute(sa.text("select balance, version from accounts")).one() == (0, 601)
        assert connection.execute(sa.text("select count(*), max(version) from entries")).one() == (601, 601)
    assert_proved(books)


def test_refusal_is_right_at_its_instant_when_deposits_come_between(books: Books, alice: Passport) -> None:
    gatherer: Gatherer[Posting, Outcome] = Gatherer()
    raws = [raw_change(amount="3.00") if n % 2 else raw_change(type=323, amount="-4.00") for n in range(600)]
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda raw: post_one(books, gatherer, alice, raw), raws))
    posted = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    refused = [outcome for outcome in outcomes if not isinstance(outcome, Answer)]
    assert all(isinstance(o, InsufficientBalance) and o.extra["available"] < "4" for o in refused)
    with books.engine.connect() as connection:
        balance, version = connection.execute(sa.text("select balance, version from accounts")).one()
    spent = sum(1 for o in posted if o.result["type"] == 323)
    assert (balance, version) == (300 * 300 - spent * 400, len(posted))
    assert_proved(books)


def test_batches_over_the_same_accounts_neither_deadlock_nor_lose_anything(books: Books) -> None:
    def post_batch(seed: int) -> int:
        rng = random.Random(seed)
        changes = [checked_change(user_id=f"user-{rng.randrange(30)}", amount="1.00") for _ in range(60)]
        outcomes = books.run(lambda session: post_with_retry(session, changes))
        return sum(view_in(outcome)["posted"] for outcome in outcomes)

    def post_with_retry(session: Session, changes: Any) -> Any:
        return usecases.post(session, [batch(changes)], threshold=THRESHOLD)

    def safely(seed: int) -> int:
        while True:
            try:
                return post_batch(seed)
            except usecases.PostingRaced:
                continue

    stop = threading.Event()

    def fold() -> None:
        while not stop.is_set():
            books.run(fold_deltas)

    folding = threading.Thread(target=fold)
    folding.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(safely, range(64))) == 64 * 60
    finally:
        stop.set()
        folding.join()
    with books.engine.connect() as connection:
        assert connection.execute(sa.text("select sum(balance), sum(version) from accounts")).one() == (384_000, 3_840)
    assert_proved(books)


def test_first_changes_of_one_user_open_one_account(books: Books, alice: Passport) -> None:
    processes = [Gatherer[Posting, Outcome]() for _ in range(8)]
    for user in range(20):
        with ThreadPoolExecutor(8) as pool:
            raw = raw_change(user_id=f"fresh-{user}", amount="1.00")
            outcomes = list(pool.map(lambda g, raw=raw: post_one(books, g, alice, raw), processes))
        assert sorted(o.result["version"] for o in outcomes if isinstance(o, Answer)) == list(range(1, 9))
    assert_proved(books)


def test_one_key_sent_many_times_at_once_posts_once(books: Books, alice: Passport) -> None:
    processes = [Gatherer[Posting, Outcome]() for _ in range(4)]
    raw = raw_change(amount="1.00")
    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(lambda n: post_one(books, processes[n % 4], alice, raw, "one key"), range(40)))
    answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    assert answers
    assert len({answer.result["entry_id"] for answer in answers}) == 1
    assert sum(not answer.is_replayed for answer in answers) == 1
    assert all(isinstance(o, Answer | IdempotencyInProgress) for o in outcomes)
    with books.engine.connect() as connection:
        assert connection.execute(sa.text("select count(*) from entries")).scalar_one() == 1


def test_one_who_breaks_the_statement_breaks_only_their_own(books: Books, alice: Passport) -> None:
    # Nothing that passes the checks does this today; a constraint of tomorrow may.
    with books.engine.begin() as connection:
        connection.execute(sa.text("alter table entries add constraint ck_test check (order_no <> 'poison')"))
    postings = [single(checked_change(order_no=word, user_id=word), passport=alice) for word in ("a", "poison", "b")]
    outcomes = usecases.carry_out(books, postings, THRESHOLD)
    codes = [o.code if isinstance(o, ServiceError) else o.result["order_no"] for o in outcomes]
    assert codes == ["a", "internal_error", "b"]
    shifting = replace(alice, actor_name="a\x1fb")
    postings = [single(checked_change(user_id=u), passport=p) for u, p in (("c", alice), ("d", shifting))]
    outcomes = usecases.carry_out(books, postings, THRESHOLD)
    assert [type(outcome) for outcome in outcomes] == [Answer, InternalError]
    assert_proved(books)


def test_posting_tells_the_relay(books: Books, alice: Passport) -> None:
    post_one(books, Gatherer(), alice, raw_change(merchant_id=AURORA))
    assert books.wakes == 1
