"""The proof beside all that goes on at once: it is never wrong about books that are right."""

import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy.orm import Session

from services.ledger.domain.archives import is_over
from services.ledger.sums import fold_deltas
from services.ledger.usecases import archives
from services.ledger.usecases.card_transfers import transfer_card_money
from services.ledger.verification import VerificationRunning, verify_ledger
from shared.contracts.archives import ArchivingRunning
from shared.errors import ServiceError
from shared.times import utc_now
from tests.conftest import AURORA
from tests.services.ledger.conftest import THRESHOLD, Books, batch, change, post_all, single
from tests.services.ledger.orders import ALICE, create, fail, fund, refund, settle
from tests.services.ledger.past import turn_clock

SECONDS: Final = float(os.environ.get("COUNTINGHOUSE_PROOF_SECONDS", "8"))
WRITERS: Final = 8
USERS: Final = 20
MONTHS: Final = 6
KINDS: Final = ("recharge", "purchase", "renewal", "payment", "withdraw", "paid_reset")
_numbers = itertools.count(1)


def _months() -> list[datetime]:
    """Return the first instants of the months before this one, the oldest first."""
    now = utc_now()
    indices = range(now.year * 12 + now.month - 1 - MONTHS, now.year * 12 + now.month - 1)
    return [datetime(index // 12, index % 12 + 1, 1, tzinfo=UTC) for index in indices]


def _live_through(session: Session, at: datetime) -> None:
    turn_clock(session, at)
    post_all(session, batch([change(user_id=f"user-{n % USERS}", amount="50.00") for n in range(USERS * 10)]))
    for kind in KINDS:
        made = create(session, kind=kind, amount="2.00", user_id="user-1")
        settle(session, made["order_no"])
        if kind in ("payment", "purchase"):
            refund(session, made["order_no"], "1.00")


def _work(session: Session, n: int) -> None:
    """Do one of the things that are done all day."""
    user, kind = f"user-{n % USERS}", KINDS[n % len(KINDS)]
    if n % 4 == 0:
        taking = change(user_id=user, type=323, amount="-1.00")
        post_all(session, single(change(user_id=user)), single(taking, request_id=f"req_{n}"))
    elif n % 4 == 1:
        moved = {"card_id": f"car_{n % 3}", "merchant_id": AURORA, "direction": "top_up", "amount": "1.00"}
        transfer_card_money(session, ALICE, threshold=THRESHOLD, transfer_id=f"ctr_{n}", currency="CNY", **moved)
    else:
        made = create(session, order_no=f"w-{n}", kind=kind, amount="1.00", user_id=user)
        if n % 8 == 2:
            fail(session, made["order_no"])
        elif n % 8 != 3:
            settle(session, made["order_no"])
            if kind in ("payment", "purchase", "renewal"):
                refund(session, made["order_no"], "0.30")


def test_proof_is_never_wrong_beside_writers_folding_and_months_that_leave(books: Books) -> None:
    for month in _months():
        books.run(lambda session, month=month: _live_through(session, month))
    books.run(lambda session: fund(session, "5000.00", user_id=None))
    ends_at = time.monotonic() + SECONDS
    done: dict[str, int] = dict.fromkeys(("written", "proved", "left"), 0)
    faults: list[Any] = []

    def again(name: str, work: Any, *, pause: float = 0) -> None:
        while time.monotonic() < ends_at:
            with suppress(VerificationRunning, ArchivingRunning):
                count = books.run(work) or 0
                done[name] = done.get(name, 0) + count
            time.sleep(pause)

    def write(session: Session) -> int:
        with suppress(ServiceError), session.begin_nested():
            _work(session, next(_numbers))
        return 1

    modes = itertools.cycle(("full", "incremental", "incremental", "due"))

    def proved(session: Session) -> int:
        view = verify_ledger(session, mode=next(modes))  # type: ignore[arg-type]
        faults.extend(view["faults"])
        return 1

    def leave(session: Session) -> int:
        month = archives.due_month(session, retention_months=1) or _months()[-1].date()
        assert is_over(month, utc_now().date())
        with suppress(ServiceError), session.begin_nested():
            archives.archive_entries(session, month=month, reason="old", actor_id="a", actor_name="a")
            return 1
        return 0

    with ThreadPoolExecutor(WRITERS + 4) as pool:
        work = [("written", write, 0.0)] * WRITERS + [("proved", proved, 0.05)] * 2
        work += [("folded", fold_deltas, 0.02), ("left", leave, SECONDS / 20)]
        running = [pool.submit(copy_context().run, again, name, act, pause=pause) for name, act, pause in work]
        for one in running:
            one.result()
    assert faults == [], done
    assert books.run(lambda session: verify_ledger(session, mode="full"))["faults"] == []
    assert (done["written"] > 50, done["proved"] >= 3, done["left"] >= 2) == (True, True, True), done
