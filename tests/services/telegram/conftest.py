"""Databases, callers and entries for the tests of telegram."""

import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from operations.migrate import upgrade
from services.telegram.models import Notification
from services.telegram.usecases import bindings
from shared.contracts.telegram import BindingView
from shared.kernel_tables import outbox
from shared.passport import Passport
from shared.rpc.wire import Call, current_call

GROUP = "-1001000000001"


def passport(name: str, *, merchants: set[str] | None = None) -> Passport:
    return Passport(
        actor_id=f"usr_{name}",
        actor_name=name,
        actor_type="user",
        permissions={"telegram": "operate"},
        merchants=None if merchants is None else frozenset(merchants),
        request_id="req-1",
    )


ALICE = passport("alice")
BOB = passport("bob", merchants={"mer_a"})
CHARLIE = passport("charlie", merchants={"mer_b"})


@pytest.fixture(scope="session")
def telegram_engine() -> Iterator[sa.Engine]:
    server = sa.make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg")
    name = f"telegram_test_{uuid.uuid4().hex[:12]}"
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
    url = server.set(database=name)
    upgrade("telegram", url.render_as_string(hide_password=False))
    engine = sa.create_engine(url, pool_size=12, max_overflow=0)
    yield engine
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(sa.text(f"drop database {name}"))


@pytest.fixture(autouse=True)
def call() -> Iterator[None]:
    token = current_call.set(Call(service="telegram", method="test", passport=ALICE, arguments={}))
    yield
    current_call.reset(token)


@pytest.fixture
def session(telegram_engine: sa.Engine) -> Iterator[Session]:
    """A session whose work is rolled back."""
    with telegram_engine.connect() as connection, connection.begin() as transaction:
        with Session(connection, expire_on_commit=False, join_transaction_mode="create_savepoint") as session:
            yield session
        transaction.rollback()


@pytest.fixture
def run(telegram_engine: sa.Engine) -> Iterator[Callable[..., Any]]:
    """Does work in a transaction that commits; the tables are emptied after the test."""

    def run(work: Callable[[Session], Any]) -> Any:
        with Session(telegram_engine, expire_on_commit=False) as session, session.begin():
            return work(session)

    yield run
    with telegram_engine.begin() as connection:
        connection.execute(sa.text("truncate bindings, large_change_rules, notifications, outbox"))
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
