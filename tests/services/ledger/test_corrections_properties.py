"""Whatever orders, records, corrections and reversals come in whatever order, the books are right after every step."""

import gzip
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from services.ledger.adapters.answers import Channel
from services.ledger.domain.archives import entries_of
from services.ledger.domain.orders import settled_type
from services.ledger.domain.payments import Outcome, Payment
from services.ledger.sums import fold_deltas
from services.ledger.usecases.corrections import reverse_correction
from services.ledger.usecases.payments import Report, acting_for, find_order, take_report
from shared.errors import ServiceError
from shared.times import utc_now
from tests.conftest import AURORA
from tests.services.ledger.conftest import THRESHOLD, change, post_all, single
from tests.services.ledger.mismatches import (
    ALICE,
    ALWAYS_WAITS,
    CAROL,
    CHANNEL,
    TERMS,
    add_world,
    approve,
    assert_books_are_right,
    correct,
    found,
    order,
    reconcile_all,
    record,
    reject,
    reverse,
)
from tests.services.ledger.orders import account, create, fail, fund, refund, settle
from tests.services.ledger.test_orders_properties import archive

KINDS = ("recharge", "purchase", "renewal", "payment", "withdraw", "paid_reset")
SAID = ("success", "success", "success", "failed", "refunded", "pending")

places = st.integers(0, 5)
references = st.integers(0, 3)
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
        st.tuples(st.just("call back"), places, st.sampled_from(SAID), st.one_of(st.none(), amounts), references),
        st.tuples(st.just("change"), st.sampled_from((None, 324, 333)), amounts, places),
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
        st.tuples(st.just("reverse any"), st.integers(0, 11)),
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
        self.left: dict[str, int] = {}  # what entries that left the log moved, by order
        self.archives = 0

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

    def call_back(self, place: int, status: str, amount: int | None, ref: int) -> None:
        """Have the platform say something of an order by one of a few numbers, as often as it likes."""
        number = self.numbers[place % len(self.numbers)]
        said = order(self.session, number).amount if amount is None else amount
        payment = Payment(number, f"cb-{ref}", status, said, None, "CNY", utc_now())
        channel = Channel(CHANNEL, "Alipay", "statement", {}, {})
        with acting_for(channel) as passport:
            locked = find_order(self.session, channel, number, is_locked=True)
            report = Report(payment, "callback")
            outcome = take_report(self.session, passport, channel, report, locked, threshold=THRESHOLD)
        assert outcome is not Outcome.SETTLED or (locked.status, locked.amount) == ("pending", said)

    def change(self, code: int | None, amount: int, place: int) -> None:
        """Post past an order, with its number, what settles it or a refund: that is refused."""
        number = self.numbers[place % len(self.numbers)]
        code = settled_type(order(self.session, number).kind) if code is None else code
        sign = "-" if code in (233, 322, 323, 331, 332) else ""
        [outcome] = post_all(self.session, single(change(type=code, amount=sign + text(amount), order_no=number)))
        assert isinstance(outcome, ServiceError)
        raise outcome

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
        """Approve, which moves what was proposed and nothing else."""
        mismatch_id = self.mismatch(place, "pending_approval", "corrected")
        waiting = sa.text("select content from corrections where mismatch_id = :id and status = 'proposed'")
        content, before = self.session.scalar(waiting, {"id": mismatch_id}), account(self.session)[0]
        approve(self.session, mismatch_id, passport=CAROL)
        assert account(self.session)[0] - before == sum(entry["amount"] for entry in content["entries"])

    def reject(self, place: int) -> None:
        reject(self.session, self.mismatch(place, "pending_approval", "corrected"))

    def reverse(self, place: int, waits: bool) -> None:
        reverse(self.session, self.mismatch(place, "corrected"), terms=ALWAYS_WAITS if waits else TERMS)

    def reverse_any(self, place: int) -> None:
        """Reverse whichever correction, also one that was reversed, or that reverses, or that nobody applied."""
        rows = self.session.execute(sa.text("select id, status, reversal_of from corrections order by id")).all()
        one = rows[place % len(rows)]
        reverse_correction(self.session, ALICE, correction_id=one.id, reason="Again.", terms=TERMS)
        assert (one.status, one.reversal_of) == ("applied", None)

    def fold(self) -> None:
        fold_deltas(self.session)

    def archive(self) -> None:
        archive(self.session)
        newest = sa.text(
            "select content from archive_parts where archive_id = (select max(id) from archives where number = :number)"
        )
        count = self.session.execute(sa.text("select count(*) from archives")).scalar_one()
        if count > self.archives:
            self.archives = count
            for content in self.session.scalars(newest, {"number": count}):
                for entry in entries_of(gzip.decompress(content)):
                    if entry.order_no is not None:
                        self.left[entry.order_no] = self.left.get(entry.order_no, 0) + entry.amount

    def rate(self, percent: str) -> None:
        config = sa.text("update channels set config = jsonb_build_object('fee_percent', cast(:percent as text))")
        self.session.execute(config, {"percent": percent})

    def check(self) -> None:
        assert_books_are_right(self.session)
        self.check_orders()

    def check_orders(self) -> None:
        """Each order moved what it says, its fee included, and no mismatch is corrected twice."""
        odd = self.session.execute(
            sa.text(
                """
                select order_no, status, amount, refunded, moved
                  from (select o.*, coalesce((select sum(amount) from entries e where e.order_no = o.order_no), 0)
                                    + coalesce((cast(:left as jsonb) ->> o.order_no)::bigint, 0) as moved
                          from orders o) as o
                 where moved <> case when status in ('pending', 'failed') then 0
                                     when kind = 'recharge' then amount - refunded - fee
                                     else refunded - amount - fee end
                """
            ),
            {"left": orjson.dumps(self.left).decode()},
        ).all()
        assert odd == []
        doubly = self.session.execute(
            sa.text("select 1 from corrections where status = 'applied' group by mismatch_id having"
                    " count(*) filter (where reversal_of is null) > 1")
        ).all()  # fmt: skip
        assert doubly == []


# What chance may miss: each kind of correction, reversed once and only once, before and after its entries left; a
# proposal whose order changed; callbacks that settle what a correction then finds; money that a correction frees.
ODD = [
    ("differ", "purchase", 100, True, "failed", 100),
    ("differ", "renewal", 200, False, "success", 200),
    ("differ", "recharge", 301, True, "success", 50),
    ("differ", "payment", 100, True, "refunded", 100),
    ("differ", "withdraw", 100, False, "success", 100),
]
CORRECTED = [
    *[("correct", 0, "upstream")] * 5,
    *[("reverse", place, False) for place in (4, 3, 2, 1, 0)],
    ("archive",),
    *[("correct", 0, "upstream")] * 5,
    *[("reverse any", place) for place in range(10)],
    ("archive",),
    *[("reverse", 0, False)] * 5,
    *[("correct", 0, "local")] * 5,
    ("fold",),
]
PROPOSED = [
    *[("propose", place, "upstream") for place in range(5)],
    ("refund", 3, 40),
    ("settle", 1),
    *[("approve", place) for place in range(5)],
    ("reverse", 0, True),
    ("reject", 0),
    ("reverse", 0, True),
    ("approve", 0),
    ("change", None, 5, 0),
    ("change", 324, 5, 3),
]
CALLED_BACK = [
    ("rate", "2.5"),
    ("create", "renewal", 100),
    ("call back", 5, "success", 99, 0),
    ("call back", 5, "success", None, 0),
    ("call back", 5, "success", None, 1),
    ("call back", 5, "failed", None, 1),
    ("refund", 5, 40),
    ("refund", 5, 61),
    ("archive",),
    ("refund", 5, 61),
    ("refund", 5, None),
    ("call back", 1, "failed", None, 2),
    ("settle", 1),
]


@example(odd=ODD, wanted=CORRECTED)
@example(odd=ODD, wanted=PROPOSED)
@example(odd=ODD, wanted=CALLED_BACK)
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
