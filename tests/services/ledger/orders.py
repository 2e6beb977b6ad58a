"""Orders for tests: made, settled, failed and refunded by use cases, with the merchants that these need."""

import itertools
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.usecases import orders
from shared.errors import ServiceError
from shared.kernel_tables import merchant_copies
from shared.passport import Passport
from tests.conftest import AURORA, BOREALIS, person
from tests.services.ledger.conftest import THRESHOLD, Books, change, post_all, result_of, single

ALICE = person("Alice", "administrator", None)
_numbers = itertools.count(1)


def add_merchants(session: Session) -> None:
    """Have heard of Aurora and Borealis."""
    rows = [{"merchant_id": m, "code": m, "name": m, "status": "active", "version": 1} for m in (AURORA, BOREALIS)]
    session.execute(sa.insert(merchant_copies), rows)


def fund(session: Session, amount: str, **fields: Any) -> None:
    """Recharge user-1 of Aurora in CNY, or whoever the fields say."""
    result_of(post_all(session, single(change(amount=amount, **fields)))[0])


def create(session: Session, *, passport: Passport = ALICE, **fields: Any) -> Any:
    """Make an order of user-1's, a payment of 10.00 CNY, with some fields put differently."""
    valid = {
        "order_no": f"O{next(_numbers)}",
        "merchant_id": AURORA,
        "user_id": "user-1",
        "kind": "payment",
        "amount": "10.00",
        "currency": "CNY",
        "channel": "alipay",
    }
    return orders.create_order(session, passport, **valid | fields)


def settle(session: Session, order_no: str, *, passport: Passport = ALICE, **more: Any) -> Any:
    """Settle an order."""
    return orders.settle_order(session, passport, order_no=order_no, threshold=THRESHOLD, **more)


def fail(session: Session, order_no: str, *, passport: Passport = ALICE, **more: Any) -> Any:
    """Fail an order."""
    return orders.fail_order(session, passport, order_no=order_no, **more)


def refund(session: Session, order_no: str, amount: str | None = None, *, passport: Passport = ALICE) -> Any:
    """Refund an order."""
    return orders.refund_order(
        session, passport, order_no=order_no, amount=amount, reason="It was broken.", threshold=THRESHOLD
    )


def account(session: Session, user_id: str = "user-1") -> tuple[int, int]:
    """Return balance and held of a user of Aurora's in CNY."""
    query = sa.text("select balance, held from accounts where merchant_id = :m and holder_id = :u and currency = 'CNY'")
    row = session.execute(query, {"m": AURORA, "u": user_id}).first()
    return (0, 0) if row is None else (row.balance, row.held)


def events(session: Session) -> list[str]:
    """Return the names of all events told so far, in their order."""
    return [key.split(".")[1] for key in session.scalars(sa.text("select routing_key from outbox order by id"))]


def in_calls(books: Books, work: Callable[[Session, Any], Any]) -> Callable[[Any], Any]:
    """Return a function that does the work in a transaction and a call of its own, in whatever thread it runs.

    Returns: the work's result, or its refusal.
    """
    context = copy_context()

    def run(item: Any) -> Any:
        try:
            return context.copy().run(lambda: books.run(lambda session: work(session, item)))
        except ServiceError as refusal:
            return refusal

    return run
