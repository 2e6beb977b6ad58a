"""Databases, callers and entries for the tests of telegram."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.telegram.models import Notification
from services.telegram.usecases import bindings
from shared.contracts.telegram import BindingView
from shared.kernel_tables import outbox
from tests.conftest import person

GROUP = "-1001000000001"


ALICE = person("Alice", "administrator", None)
BOB = person("Bob", "operator", frozenset({"mer_a"}))
CHARLIE = person("Charlie", "operator", frozenset({"mer_b"}))


@pytest.fixture
def telegram_engine(engine_of: Callable[[str], sa.Engine]) -> sa.Engine:
    return engine_of("telegram")


@pytest.fixture
def session(session_of: Callable[[str], Session]) -> Session:
    """A session whose work is rolled back."""
    return session_of("telegram")


@pytest.fixture
def run(telegram_engine: sa.Engine) -> Iterator[Callable[..., Any]]:
    """Does work in a transaction that commits; the tables are emptied after the test."""

    def run(work: Callable[[Session], Any]) -> Any:
        with Session(telegram_engine, expire_on_commit=False) as session, session.begin():
            return work(session)

    yield run
    with telegram_engine.begin() as connection:
        connection.execute(sa.text("truncate bindings, notifications, outbox cascade"))
        connection.execute(sa.text("delete from pace where chat_id <> 0"))
        connection.execute(sa.text("update pace set theoretical_at = 'epoch', paused_until = 'epoch'"))


def bind(
    session: Session, *, merchant_id: str = "mer_a", chat_id: str = GROUP, threshold: str | None = "1000.00"
) -> BindingView:
    """Bind a group and switch its rule on."""
    binding = bindings.create_binding(
        session, merchant_id=merchant_id, chat_id=chat_id, title="Northwind", language="en"
    )
    rule: Any = {"enabled": True, "threshold": threshold}
    bindings.change_rules(session, ALICE, binding_id=binding["id"], large_change=rule)
    return binding


def entry(amount: str = "1500.00", **fields: Any) -> Any:
    """An entry as `BalancesChanged` carries it."""
    return {
        "entry_id": "ent_1",
        "user_id": "u1001",
        "holder_type": "user",
        "holder_id": "u1001",
        "merchant_id": "mer_a",
        "amount": amount,
        "currency": "CNY",
        "order_no": "R1",
        "balance": "2000.00",
        "version": 1,
        "type": 321,
        "type_name": "Recharge",
        "group": "Recharge/Withdrawal",
        "time": "2026-11-24T08:00:00Z",
        "operator": None,
        "channel": None,
        "note": None,
        "reason": None,
        **fields,
    }


def notifications(session: Session) -> list[Notification]:
    return list(session.scalars(sa.select(Notification).order_by(Notification.due_at, Notification.id)))


def events(session: Session) -> list[str]:
    """The names of the events told of, in their order."""
    keys = session.scalars(sa.select(outbox.c.routing_key).order_by(outbox.c.id))
    return [key.removeprefix("telegram.") for key in keys]
