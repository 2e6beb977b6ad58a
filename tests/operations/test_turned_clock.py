"""A turned clock is what the ledger's own statements see, and it is the real one again by itself."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import sqlalchemy as sa

from operations import turned_clock
from operations.turned_clock import TurnedClock

A_MONTH_AGO = datetime.now(UTC) - timedelta(days=30)
A_MOMENT = timedelta(seconds=30)


@pytest.fixture
def connection(make_database: Callable[[str], str]) -> Iterator[psycopg.Connection]:
    """A connection as the ledger's role has it while the clock is turned; nothing of it stays."""
    url = sa.make_url(make_database("ledger")).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        connection.execute(turned_clock._SCHEMA)
        connection.execute("set local search_path = turned, pg_catalog, public")
        yield connection
        connection.rollback()


def clock(connection: psycopg.Connection, **how: timedelta) -> TurnedClock:
    return TurnedClock(connection, role="nobody", database=connection.info.dbname, **how)


def seen(connection: psycopg.Connection) -> datetime:
    """Return the instant that a statement of the ledger sees."""
    row = connection.execute("select clock_timestamp()").fetchone()
    assert row is not None
    at: datetime = row[0]
    return at


def test_statements_see_the_turned_instant_which_goes_on(connection: psycopg.Connection) -> None:
    assert abs(seen(connection) - datetime.now(UTC)) < A_MOMENT
    clock(connection).turn(A_MONTH_AGO)
    first = seen(connection)
    assert timedelta() <= first - A_MONTH_AGO < A_MOMENT
    assert seen(connection) > first


def test_a_turn_that_nobody_ends_ends_by_itself(
    connection: psycopg.Connection,
) -> None:
    clock(connection, turn_lasts=timedelta()).turn(A_MONTH_AGO)
    assert abs(seen(connection) - datetime.now(UTC)) < A_MOMENT
