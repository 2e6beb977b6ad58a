"""Two connections at once, with real commits."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.cards import usecases
from services.cards.models import Assignment, Card
from shared.contracts.cards import CardAlreadyFrozen, CardNumberTaken
from shared.rpc.wire import Call, current_call
from tests.conftest import AURORA, BOREALIS
from tests.services.cards.conftest import VISA, add_merchants


@pytest.fixture
def at_once(engine_of, alice) -> Iterator:
    """Do the same thing in several transactions at once. Returns: results and refusals."""
    engine = engine_of("cards")
    with Session(engine) as session, session.begin():
        add_merchants(session)

    def run(*works):
        barrier = threading.Barrier(len(works))

        def one(work):
            current_call.set(Call(service="cards", method="test", passport=alice, arguments={}))
            try:
                with Session(engine, expire_on_commit=False) as session, session.begin():
                    barrier.wait(10)
                    return work(session)
            except (CardNumberTaken, CardAlreadyFrozen) as refusal:
                return type(refusal)

        with ThreadPoolExecutor(len(works)) as pool:
            return list(pool.map(one, works))

    yield run
    with engine.begin() as connection:
        connection.execute(sa.text("truncate cards, card_assignments, outbox, merchant_copies cascade"))


def create(session, alice, cipher, number):
    return usecases.create_card(
        session,
        alice,
        cipher,
        number=number,
        bin=None if number else "411111",
        holder_name="Ada",
        currency="CNY",
        expiry=None,
        merchant_id=None,
    )["id"]


def test_one_number_makes_one_card_however_many_ask_at_once(at_once, alice, cipher):
    results = at_once(*[lambda session: create(session, alice, cipher, VISA)] * 8)
    assert len([r for r in results if r is CardNumberTaken]) == 7


def test_of_eight_who_freeze_at_once_one_does(at_once, alice, cipher):
    [card_id] = at_once(lambda session: create(session, alice, cipher, None))
    at_once(lambda session: usecases.activate_card(session, alice, card_id=card_id))
    results = at_once(
        *[lambda session: usecases.freeze_card(session, alice, card_id=card_id, reason="x")["status"]] * 8
    )
    assert sorted(map(str, results)) == sorted(["frozen", *[str(CardAlreadyFrozen)] * 7])


def test_rival_assignments_leave_one_open_interval_a_card_and_no_deadlock(at_once, engine_of, alice, cipher):
    ids = [at_once(lambda session: create(session, alice, cipher, None))[0] for _ in range(20)]

    def assign(merchant_id, card_ids):
        return lambda session: usecases.assign_cards(session, alice, card_ids=card_ids, merchant_id=merchant_id)

    for _ in range(5):
        at_once(*[assign(AURORA, ids), assign(BOREALIS, ids[::-1])] * 3)
    with Session(engine_of("cards")) as session:
        intervals = session.scalars(sa.select(Assignment).order_by(Assignment.card_id, Assignment.id)).all()
        holders = dict(session.execute(sa.select(Card.id, Card.merchant_id)).all())
    for card_id in ids:
        mine = [i for i in intervals if i.card_id == card_id]
        assert [i.unassigned_at is None for i in mine] == [False] * (len(mine) - 1) + [True]
        assert all(a.unassigned_at <= b.assigned_at for a, b in itertools.pairwise(mine))
        assert mine[-1].merchant_id == holders[card_id]
