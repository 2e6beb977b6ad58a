"""The ledger's clock, turned to another instant: past days are lived through by the code that lives through today.

No API makes an order of last month, and none should. So the superuser puts a function `clock_timestamp` before
PostgreSQL's own on the search path of the ledger's role: whatever the ledger posts, settles and refunds then has the
turned instant, in the entries' chains and sums too. What no statement of the ledger names, such as the default of
`callbacks.received_at`, stays as it is.
"""

import contextlib
from collections.abc import Iterator
from datetime import datetime

import psycopg
from psycopg import sql

from operations.databases import service_database
from operations.system import System

_SCHEMA = """
create schema if not exists turned;
create table if not exists turned.clock (ahead interval not null);
delete from turned.clock;
insert into turned.clock values (interval '0');
create or replace function turned.clock_timestamp() returns timestamptz language sql volatile
    as $$ select pg_catalog.clock_timestamp() + ahead from turned.clock $$;
grant usage on schema turned to public;
grant select on turned.clock to public;
"""


class TurnedClock:
    """The clock of a system's ledger."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def turn(self, at: datetime) -> None:
        """Have it be `at` in the ledger from now on, and go on from there."""
        self._connection.execute("update turned.clock set ahead = %s - pg_catalog.clock_timestamp()", [at])

    def turn_back(self) -> None:
        """Have it be now."""
        self._connection.execute("update turned.clock set ahead = interval '0'")


@contextlib.contextmanager
def turned_clock(system: System) -> Iterator[TurnedClock]:
    """Give the ledger's clock; at the end it is PostgreSQL's own again."""
    ledger = service_database(system.home, system.servers.database_url, "ledger")
    names = psycopg.conninfo.conninfo_to_dict(ledger.app_url)
    admin = psycopg.conninfo.make_conninfo(system.servers.database_url, dbname=names["dbname"])
    role, database = sql.Identifier(str(names["user"])), sql.Identifier(str(names["dbname"]))
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(_SCHEMA)
        connection.execute(
            sql.SQL("alter role {} in database {} set search_path = turned, pg_catalog, public").format(role, database)
        )
        _begin_anew(system)
        try:
            yield TurnedClock(connection)
        finally:
            connection.execute(sql.SQL("alter role {} in database {} reset search_path").format(role, database))
            _begin_anew(system)


def _begin_anew(system: System) -> None:
    """Have the ledger's processes connect again: a path is looked at when a connection is made."""
    system.restart("ledger")
    system.wait_ready()
