"""Whatever orders, records, corrections and reversals come in whatever order, the books are right after every step."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from services.ledger.sums import fold_deltas
from shared.errors import ServiceError
from tests.conftest import AURORA
from tests.services.ledger.mismatches import (
    ALWAYS_WAITS,
    CAROL,
    TERMS,
    add_world,
    approve,
    assert_books_are_right,
    correct,
    found,
    reconcile_all,
    record,
    reject,
    reverse,
)
from tests.services.ledger.orders import create, fail, fund, refund, settle
from tests.services.ledger.test_orders_properties import archive

KINDS = ("recharge", "purchase", "renewal", "payment", "withdraw", "paid_reset")
SAID = ("success", "success", "success", "failed", "refunded", "pending")

places = st.integers(0, 5)
amounts = st.integers(1, 400)
directions = st.sampled_from(("upstream", "upstream", "local"))
# An order with what the platform says of it, found to differ: else most examples would correct nothing.
differing = st.tuples(
    st.just("differ"), st.sampled_from(KINDS), amounts, st.booleans(), st.sampled_from((None, *SAID)), amounts
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.sampled_from(KINDS), amounts),
        st.tuples(st.just("settle"), places),
        st.tuples(st.just("fail"), places),
        st.tuples(st.just("refund"), places, st.one_of(st.none(), amounts)),
        st.tuples(st.just("say"), st.one_of(st.none(), places), st.sampled_from(SAID), amounts),
        st.tuples(st.just("correct"), places, directions),
        st.tuples(st.just("correct"), places, directions),
        st.tuples(st.just("correct"), places, st.just("upstream")),
        differing,
        st.tuples(st.just("propose"), places, directions),
        st.tuples(st.just("approve"), places),
        st.tuples(st.just("approve"), places),
        st.tuples(st.just("reject"), places),
        st.tuples(st.just("reverse"), places, st.booleans()),
        st.tuples(st.just("reverse"), places, st.booleans()),
        st.tuples(st.just("fold")),
        st.tuples(st.just("archive")),
        st.tuples(st.just("rate"), st.sampled_from(("0", "2.5", "100"))),
    ),
    min_size=8,
    max_size=25,
)


def text(minor: int) -> str:
    return f"{minor // 100}.{minor % 100:02}"


class World:
    """Orders and what the platform says of them; a refusal leaves nothing behind, as a command's transaction has it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.numbers: list[str] = []
        self.is_whole = True  # all entries are in the log

    def step(self, verb: str, *arguments: Any) -> None:
        savepoint = self.session.begin_nested()
        with suppress(ServiceError, IndexError, ZeroDivisionError):  # there may be none of what a step is for
            getattr(self, verb.replace(" ", "_"))(*arguments)
            savepoint.commit()
            return
        savepoint.rollback()

    def create(self, kind: str, amount: int) -> None:
        made = create(self.session, order_no=f"o-{len(self.numbers)}", kind=kind, amount=text(amount))
        self.numbers.append(made["order_no"])

    def settle(self, place: int) -> None:
        settle(self.session, self.numbers[place % len(self.numbers)])

    def fail(self, place: int) -> None:
        fail(self.session, self.numbers[place % len(self.numbers)])

    def refund(self, place: int, amount: int | None) -> None:
        refund(self.session, self.numbers[place % len(self.numbers)], None if amount is None else text(amount))

    def say(self, place: int | None, status: str, amount: int) -> None:
        record(
            self.session,
            None if place is None else self.numbers[place % len(self.numbers)],
            status=status,
            amount=amount,
        )

    def differ(self, kind: str, amount: int, is_settled: bool, said: str | None, upstream_amount: int) -> None:
        self.create(kind, amount)
        if is_settled:
            settle(self.session, self.numbers[-1])
        if said is not None:
            record(self.session, self.numbers[-1], status=said, amount=upstream_amount if amount % 2 else amount)
        reconcile_all(self.session, days=1)

    def mismatch(self, place: int, *statuses: str) -> str:
        those = found(self.session, *statuses)
        return str(those[place % len(those)]["id"])

    def correct(self, place: int, to: str) -> None:
        mine = {"merchant_id": AURORA, "user_id": "user-1", "kind": KINDS[place]}
        correct(self.session, self.mismatch(place, "open"), to, **mine)

    def propose(self, place: int, to: str) -> None:
        mine = {"merchant_id": AURORA, "user_id": "user-1", "kind": KINDS[place]}
        correct(self.session, self.mismatch(place, "open", "pending_approval"), to, terms=ALWAYS_WAITS, **mine)

    def approve(self, place: int) -> None:
        approve(self.session, self.mismatch(place, "pending_approval", "corrected"), passport=CAROL)

    def reject(self, place: int) -> None:
        reject(self.session, self.mismatch(place, "pending_approval", "corrected"))

    def reverse(self, place: int, waits: bool) -> None:
        reverse(self.session, self.mismatch(place, "corrected"), terms=ALWAYS_WAITS if waits else TERMS)

    def fold(self) -> None:
        fold_deltas(self.session)

    def archive(self) -> None:
        archive(self.session)
        self.is_whole = False

    def rate(self, percent: str) -> None:
        config = sa.text("update channels set config = jsonb_build_object('fee_percent', cast(:percent as text))")
        self.session.execute(config, {"percent": percent})

    def check(self) -> None:
        assert_books_are_right(self.session)
        if self.is_whole:
            self.check_orders()

    def check_orders(self) -> None:
        """Each order moved what it says, its fee included, and no mismatch is corrected twice."""
        odd = self.session.execute(
            sa.text(
                """
                select order_no, status, amount, refunded, moved
                  from (select o.*, coalesce((select sum(amount) from entries e where e.order_no = o.order_no), 0)
                                    as moved
                          from orders o) as o
                 where moved <> case when status in ('pending', 'failed') then 0
                                     when kind = 'recharge' then amount - refunded - fee
                                     else refunded - amount - fee end
                """
            )
        ).all()
        assert odd == []
        doubly = self.session.execute(
            sa.text("select 1 from corrections where status = 'applied' group by mismatch_id having"
                    " count(*) filter (where reversal_of is null) > 1")
        ).all()  # fmt: skip
        assert doubly == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(differing, min_size=3, max_size=5), steps)
def test_books_are_right_after_every_step(
    engine_of: Callable[[str], sa.Engine], odd: list[tuple[Any, ...]], wanted: list[tuple[Any, ...]]
) -> None:
    with Session(engine_of("ledger")) as session:  # closed without a commit
        add_world(session)
        fund(session, "30.00")
        world = World(session)
        for step in [*odd, *wanted]:
            world.step(*step)
            world.check()


def test_after_correcting_all_there_is_nothing_left_to_find(session_of: Callable[[str], Session]) -> None:
    session = session_of("ledger")
    add_world(session)
    fund(session, "1000.00")
    world = World(session)
    for kind in KINDS * 4:
        world.create(kind, 400)
    for place in range(0, 24, 2):
        world.settle(place)
    for place, status in enumerate(SAID * 3):
        world.say(place, status, 400 if place % 3 else 350)
    world.say(None, "success", 123)
    reconcile_all(session, days=1)
    for mismatch in found(session, "open"):
        savepoint = session.begin_nested()
        try:
            correct(session, mismatch["id"], merchant_id=AURORA, user_id="user-1", kind="recharge")
            savepoint.commit()
        except ServiceError:
            savepoint.rollback()
            correct(session, mismatch["id"], "local")
    world.check()
    reconcile_all(session, days=1)
    assert found(session, "open") == []
