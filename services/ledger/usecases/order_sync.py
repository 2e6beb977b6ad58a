"""Pending orders are asked for at their platforms, where these can be asked: a callback may never have come."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.adapters.answers import Channel
from services.ledger.cipher import ChannelCipher
from services.ledger.domain.channels import ASKABLE_KINDS
from services.ledger.models.channels import channels
from services.ledger.models.orders import orders
from services.ledger.queries.pages import position
from services.ledger.usecases.payments import Books, acting_for, ask_channel, open_channel, take_answer
from shared.contracts.channels import OrderSyncView
from shared.errors import InvalidRequest
from shared.paging import encode_cursor
from shared.passport import Passport
from shared.rpc.wire import Call

OLDER_THAN_SECONDS: Final = 300
ORDERS_MAX: Final = 200
DAYS_MAX: Final = 30  # nobody asks for ever for an order that was left lying
ASKED_AT_ONCE: Final = 8
UNANSWERED_IN_A_ROW_MAX: Final = 5
SECONDS_LEFT_MIN: Final = 12.0  # an answer may take eight


@dataclass(slots=True)
class _Tally:
    """What all threads of one call have found. A channel that does not answer is asked no more."""

    guard: threading.Lock = field(default_factory=threading.Lock)
    asked: int = 0
    unanswered: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    in_a_row: Counter[str] = field(default_factory=Counter)

    def may_ask(self, code: str) -> bool:
        """Return whether a channel has answered lately."""
        return self.in_a_row[code] < UNANSWERED_IN_A_ROW_MAX

    def add(self, code: str, outcome: str | None) -> None:
        """Note what asking a channel came to; None is no proper answer."""
        with self.guard:
            self.asked += 1
            if outcome is None:
                self.unanswered += 1
                self.in_a_row[code] += 1
            else:
                self.outcomes[outcome] += 1
                self.in_a_row[code] = 0

    def unreachable(self) -> list[str]:
        """Return the channels that were given up."""
        return sorted(code for code in self.in_a_row if not self.may_ask(code))


def sync_order_statuses(
    books: Books,
    cipher: ChannelCipher,
    call: Call,
    *,
    older_than_seconds: int,
    limit: int,
    cursor: str | None,
    allowed: frozenset[str],
) -> OrderSyncView:
    """Ask for pending orders of the caller's merchants, the oldest first, and let each follow the answer.

    older_than_seconds: younger ones are left alone; so are those of more than thirty days.
    limit: how many orders at most; the call also ends when its time does, and `next_cursor` goes on from there.
    Raises: InvalidRequest, InvalidCursor.
    Emits: what `take_report` does, for each order.
    Idempotent: an order that is not pending any more is left as it is.
    """
    if not (0 <= older_than_seconds <= DAYS_MAX * 86_400 and 1 <= limit <= ORDERS_MAX):
        raise InvalidRequest(f"older_than_seconds or limit (at most {ORDERS_MAX}) is out of range.")
    after = position(cursor, length=1)[0] if cursor else 0
    rows = books.run(lambda session: _pending(session, call.passport, older_than_seconds, after, limit))
    open_ones = books.run(
        lambda session: {code: open_channel(session, cipher, code) for code in {row.channel for row in rows}}
    )
    tally, waiting = _Tally(), iter(rows)

    def take_turns() -> None:
        while (row := _next(waiting, tally, call)) is not None:
            channel = open_ones[row.channel]
            if channel is not None and tally.may_ask(row.channel):
                tally.add(row.channel, _sync(books, channel, row.order_no, allowed))

    _at_once(take_turns, min(ASKED_AT_ONCE, len(rows)))
    left = next(waiting, None)
    is_all = left is None and len(rows) < limit
    return {
        "asked": tally.asked,
        "outcomes": dict(tally.outcomes),
        "unanswered": tally.unanswered,
        "unreachable": tally.unreachable(),
        "next_cursor": None if is_all else encode_cursor([rows[-1].id if left is None else left.id - 1]),
    }


def _pending(session: Session, passport: Passport, older_than_seconds: int, after: int, limit: int) -> Any:
    c = orders.c
    now = sa.func.clock_timestamp()
    askable = sa.select(channels.c.code).where(channels.c.status == "active", channels.c.kind.in_(ASKABLE_KINDS))
    query = sa.select(c.id, c.order_no, c.channel).where(
        c.status == "pending",
        c.id > after,
        c.channel.in_(askable),
        c.created_at < now - sa.func.make_interval(0, 0, 0, 0, 0, 0, older_than_seconds),
        c.created_at > now - sa.func.make_interval(0, 0, 0, DAYS_MAX),
    )
    merchants = passport.merchant_filter()
    if merchants is not None:
        query = query.where(c.merchant_id.in_(merchants))
    return session.execute(query.order_by(c.id).limit(limit)).all()


def _next(waiting: Iterator[Any], tally: _Tally, call: Call) -> Any:
    if call.seconds_left < SECONDS_LEFT_MIN:
        return None
    with tally.guard:
        return next(waiting, None)


def _at_once(work: Callable[[], None], count: int) -> None:
    """Do the work in so many threads, each within the running call, and wait for all. Raises: what the first raised."""
    errors: list[Exception] = []

    def guarded() -> None:
        try:
            work()
        except Exception as error:  # it is raised where it can be heard
            errors.append(error)

    threads = [threading.Thread(target=copy_context().run, args=(guarded,), daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _sync(books: Books, channel: Channel, order_no: str, allowed: frozenset[str]) -> str | None:
    """Ask for one order and let it follow. Returns: what followed; None where there was no proper answer."""
    with acting_for(channel) as passport:
        answer = ask_channel(books, channel, order_no=order_no, upstream_ref=None, asked_for="sync", allowed=allowed)
        if answer.fault is not None:
            return None
        if not answer.payments:
            return "unpaid"
        threshold = books.threshold()
        outcome, _ = books.run(
            lambda session: take_answer(session, passport, channel, answer.payments, threshold=threshold)
        )
        return str(outcome.value)
