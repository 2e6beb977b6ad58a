"""Many at once, with real commits, over a line that fails: nothing doubled, nothing lost, no limit passed."""

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest
import sqlalchemy as sa

from services.cards import usecases
from services.cards.money import carrying
from shared.errors import ServiceError
from tests.conftest import AURORA, BOREALIS
from tests.services.cards.money.conftest import ALICE, Desk


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Do all of this at the same time. Returns: results, and the codes of refusals."""
    contexts = [copy_context() for _ in works]

    def one(pair: tuple[Any, Callable[[], Any]]) -> Any:
        try:
            return pair[0].run(pair[1])
        except ServiceError as refusal:
            return refusal.code

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(one, zip(contexts, works, strict=True)))


def agree(desk: Desk, *cards: str) -> None:
    """Check that cards and ledger say the same of each card and each transfer, and that the books are right."""
    for card_id in cards:
        state = desk.run(
            lambda s, c=card_id: s.execute(
                sa.text(
                    "select balance,"
                    " (select coalesce(sum(case direction when 'top_up' then amount else -amount end), 0)"
                    " from card_transfers where card_id = :c and state = 'posted') as moved,"
                    " (select count(*) from card_transfers where card_id = :c and state = 'requested') as under_way"
                    " from cards where id = :c"
                ),
                {"c": c},
            ).one()
        )
        assert (state.balance, state.under_way) == (state.moved, 0)
        assert desk.ledger.balance(card_id) == state.balance
    said = desk.run(lambda s: s.execute(sa.text("select id, state from card_transfers")).all())
    with desk.ledger.engine.connect() as connection:
        posted = connection.execute(
            sa.text(
                "select transfer_id, case when refusal is null then 'posted' else 'refused' end from card_transfers"
            )
        ).all()
        entries = connection.execute(
            sa.text("select split_part(note, ' ', 1), count(*) from entries where type > 500 group by 1")
        ).all()
    assert sorted(map(tuple, said)) == sorted(map(tuple, posted))
    assert dict(map(tuple, entries)) == {transfer_id: 2 for transfer_id, state in said if state == "posted"}
    # Each outcome was told of once.
    told = desk.run(
        lambda s: s.scalars(sa.text("select envelope::json -> 'payload' ->> 'transfer_id' from outbox")).all()
    )
    assert sorted(filter(None, told)) == sorted(transfer_id for transfer_id, _ in said)
    desk.ledger.prove()


@pytest.mark.parametrize("seed", range(3))
def test_two_hundred_over_a_line_that_fails_move_once_or_not_at_all(desk: Desk, seed: int) -> None:
    chance = random.Random(seed)
    cards = [desk.card(), desk.card()]
    desk.ledger.faults = chance.choices([None, "away", "lost", "broken"], [4, 1, 1, 1], k=150)
    orders = [
        (chance.choice(cards), chance.choice(["top_up", "withdrawal"]), f"{chance.randrange(1, 60)}.00", f"k{n}")
        for n in range(200)
    ]
    outcomes: list[str] = []
    for start in range(0, 200, 50):
        part = orders[start : start + 50]
        outcomes += at_once(*(lambda o=o: desk.attempt(*o[:3], key=o[3]) for o in part))
    assert set(outcomes) <= {"posted", "insufficient_balance", "outcome_unknown"}
    assert outcomes.count("outcome_unknown") > 20
    desk.ledger.faults = []
    # Whoever did not hear asks again, while the tick is at it too.
    unheard = [o for o, outcome in zip(orders, outcomes, strict=True) if outcome == "outcome_unknown"]
    desk.run(lambda s: s.execute(sa.text("update card_transfers set next_attempt_at = clock_timestamp()")))
    at_once(
        lambda: carrying.complete_transfers(desk),
        lambda: carrying.complete_transfers(desk),
        *(lambda o=o: desk.attempt(*o[:3], key=o[3]) for o in unheard[:30]),
    )
    desk.complete()
    final = [desk.attempt(*o[:3], key=o[3]) for o in orders]
    assert set(final) == {"posted", "insufficient_balance"}
    assert all(a in (b, "outcome_unknown") for a, b in zip(outcomes, final, strict=True))
    agree(desk, *cards)


def test_twenty_at_once_with_one_key_move_once(desk: Desk) -> None:
    card_id = desk.card()
    outcomes = Counter(at_once(*[lambda: desk.attempt(card_id, "top_up", "10.00", key="k1")] * 20))
    assert outcomes["posted"] >= 1
    assert set(outcomes) <= {"posted", "idempotency_in_progress"}
    assert desk.states(card_id) == ["posted"]
    assert desk.ledger.balance(card_id) == 1_000
    agree(desk, card_id)


def test_limits_are_exact_however_many_come_at_once(desk: Desk) -> None:
    by_amount, by_count = desk.card(), desk.card()
    desk.run(lambda s: usecases.update_card(s, ALICE, card_id=by_amount, limits={"daily_amount": "70.00"}))
    desk.run(lambda s: usecases.update_card(s, ALICE, card_id=by_count, limits={"daily_count": 5}))
    works = [lambda c=c: desk.attempt(c, "top_up", "10.00") for c in (by_amount, by_count) for _ in range(20)]
    assert Counter(at_once(*works)) == {"posted": 12, "limit_exceeded": 28}
    assert (desk.ledger.balance(by_amount), desk.ledger.balance(by_count)) == (7_000, 5_000)
    agree(desk, by_amount, by_count)


def test_a_closed_card_is_empty_and_a_card_with_money_is_not_closed(desk: Desk) -> None:
    cards = [desk.card() for _ in range(30)]

    def close(card_id: str) -> Any:
        return desk.run(lambda s: usecases.close_card(s, ALICE, card_id=card_id, reason="race"))["status"]

    for card_id in cards:
        outcomes = at_once(
            lambda c=card_id: desk.attempt(c, "top_up", "1.00"),
            lambda c=card_id: close(c),
            lambda c=card_id: desk.attempt(c, "top_up", "1.00"),
        )
        view = desk.view(card_id)
        assert (view["status"] == "closed") == (outcomes[1] == "closed")
        if view["status"] == "closed":
            assert desk.ledger.balance(card_id) == 0
        else:
            assert outcomes == ["posted", "card_not_empty", "posted"]
    agree(desk, *cards)


def test_a_card_changes_hands_only_while_it_is_empty(desk: Desk) -> None:
    desk.ledger.fund("100.00", BOREALIS)
    card_id = desk.card()

    def assign(merchant_id: str) -> Any:
        return desk.run(lambda s: usecases.assign_card(s, ALICE, card_id=card_id, merchant_id=merchant_id))

    for _ in range(25):
        at_once(
            lambda: desk.attempt(card_id, "top_up", "1.00"),
            lambda: assign(AURORA),
            lambda: assign(BOREALIS),
            lambda: desk.attempt(card_id, "withdrawal", "1.00"),
            lambda: desk.attempt(card_id, "withdrawal", "1.00"),
        )
        # What it has is with the merchant that holds it.
        with desk.ledger.engine.connect() as connection:
            held = connection.execute(
                sa.text("select merchant_id from accounts where holder_id = :c and balance > 0"), {"c": card_id}
            ).scalars()
            assert set(held) <= {desk.view(card_id)["merchant_id"]}
    agree(desk, card_id)
