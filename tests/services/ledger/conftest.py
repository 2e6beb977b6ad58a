"""A ledger of one's own: changes and calls to post, and a database that may be committed to and tampered with."""

import atexit
import itertools
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from operations import migrate
from services.ledger.domain.changes import Change, check_change
from services.ledger.domain.thresholds import Threshold
from services.ledger.posting import Outcome, Posting, post
from shared.contracts.users import MerchantNotFound
from shared.database import asks_to_retry
from shared.errors import ServiceError
from shared.kernel_tables import merchant_copies
from shared.passport import Passport
from shared.rpc.wire import Answer, Call
from tests.conftest import AURORA, BOREALIS, person

THRESHOLD = Threshold("10000.00")
_orders = itertools.count(1)


def raw_change(**fields: Any) -> dict[str, Any]:
    """Return a client's JSON of a valid recharge of 100 CNY, with some fields put differently; None leaves one out."""
    valid = {
        "merchant_id": AURORA,
        "user_id": "user-1",
        "type": 321,
        "amount": "100.00",
        "currency": "CNY",
        "order_no": f"P{next(_orders)}",
    }
    return {name: value for name, value in (valid | fields).items() if value is not None}


def change(**fields: Any) -> Change:
    """Return the same, checked."""
    return check_change(raw_change(**fields), is_admin=True)


def call_of(passport: Passport, *, key: str | None = None, request_id: str = "req_test", **arguments: Any) -> Call:
    """Return a call of the ledger's."""
    return Call(
        service="ledger",
        method="post_balance_change",
        passport=replace(passport, request_id=request_id),
        arguments=arguments,
        idempotency_key=key,
    )


def single(checked: Change, *, key: str | None = None, passport: Passport | None = None, **more: Any) -> Posting:
    """Return a request to post one change."""
    return Posting(call_of(passport or person("Alice", "administrator", None), key=key, **more), [checked])


def batch(changes: Iterable[Change | ServiceError], *, is_atomic: bool = True, key: str | None = None) -> Posting:
    """Return a request to post a batch."""
    call = call_of(person("Alice", "administrator", None), key=key)
    return Posting(call, list(changes), is_batch=True, is_atomic=is_atomic)


def post_all(session: Session, *postings: Posting) -> list[Outcome]:
    """Post requests in one statement."""
    return post(session, postings, threshold=THRESHOLD)


def result_of(outcome: Outcome) -> Any:
    """Return what an outcome answers; raise what it refuses."""
    if isinstance(outcome, ServiceError):
        raise outcome
    assert isinstance(outcome, Answer)
    return view_in(outcome)


def view_in(answer: Answer) -> Any:
    """Return an answer's view; that of a batch is JSON text."""
    return orjson.loads(answer.result) if isinstance(answer.result, str) else answer.result


class Books:
    """What use cases need of a process: transactions that are tried again, and merchants."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.wakes = 0
        self.asked = 0

    def run(self, work: Callable[[Session], Any]) -> Any:
        """Do work in a transaction, again where the database asks for that."""
        for _ in range(10):
            try:
                with Session(self.engine) as session:
                    result = work(session)
                    session.commit()
                    return result
            except DBAPIError as error:
                if not asks_to_retry(error):
                    raise
        raise AssertionError("tried too often")

    def wake_relay(self) -> None:
        """Count."""
        self.wakes += 1

    def ensure_merchants(self, merchant_ids: Iterable[str]) -> None:
        """Know two merchants."""
        self.asked += 1
        if not set(merchant_ids) <= {AURORA, BOREALIS}:
            raise MerchantNotFound


@pytest.fixture
def session(session_of: Callable[[str], Session]) -> Session:
    """A session on the ledger's database, rolled back after the test."""
    return session_of("ledger")


@contextmanager
def own_database(server_url: str) -> Iterator[str]:
    """Make a migrated ledger that nobody else has. Yields: its address."""
    name = f"test_ledger_{secrets.token_hex(4)}"
    _administer(server_url, f"create database {name} template {_migrated_template(server_url)}")
    try:
        yield _address(server_url, name)
    finally:
        _administer(server_url, f"drop database {name} with (force)")


@cache
def _migrated_template(server_url: str) -> str:
    """Return a ledger that copies are made of: a copy takes a tenth of the migrations' time."""
    name = f"test_ledger_template_{secrets.token_hex(4)}"
    _administer(server_url, f"create database {name}")
    atexit.register(_administer, server_url, f"drop database if exists {name} with (force)")
    migrate.upgrade("ledger", _address(server_url, name))
    return name


def _address(server_url: str, name: str) -> str:
    url = sa.make_url(server_url).set(drivername="postgresql+psycopg", database=name)
    return url.render_as_string(hide_password=False)


def _administer(server_url: str, statement: str) -> None:
    url = sa.make_url(server_url).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(statement))


@contextmanager
def own_ledger(server_url: str) -> Iterator[sa.Engine]:
    """Give an engine on a migrated ledger that nobody else has."""
    with own_database(server_url) as url:
        engine = sa.create_engine(url, pool_size=40, connect_args={"options": "-c timezone=UTC"})
        yield engine
        engine.dispose()


@pytest.fixture
def own_engine(server_url: str) -> Iterator[sa.Engine]:
    """An engine on a ledger that only this test has, for what commits or tampers."""
    with own_ledger(server_url) as engine:
        yield engine


@pytest.fixture(scope="module")
def engine(server_url: str) -> Iterator[sa.Engine]:
    """An engine on a ledger that only this module has: its tests commit."""
    with own_ledger(server_url) as engine:
        yield engine


@pytest.fixture
def books(own_engine: sa.Engine) -> Books:
    """A process's view of a ledger that only this test has, and that has heard of two merchants."""
    rows = [
        {"merchant_id": merchant_id, "code": merchant_id, "name": merchant_id, "status": "active", "version": 1}
        for merchant_id in (AURORA, BOREALIS)
    ]
    with own_engine.begin() as connection:
        connection.execute(sa.insert(merchant_copies), rows)
    return Books(own_engine)
