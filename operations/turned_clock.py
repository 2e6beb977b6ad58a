"""The ledger's clock, turned to past days, so that a demonstration's orders live through them.

No route makes an order of last month, and none should. So the administrator of the database puts a function
`clock_timestamp` before PostgreSQL's own on the search path of the ledger's role: what the ledger then posts, settles
and refunds has the turned instant, in the entries' chains and sums too, and proves like anything else. Only a ledger
without an account is turned, so that nothing of anybody's is touched. However the turning ends, also by a kill, the
clock is PostgreSQL's own again soon after, since each turn ends by itself.
"""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Final

import psycopg
from psycopg import sql

from operations.databases import service_database
from operations.system import System

TURN_SECONDS_MAX: Final = 60
_SCHEMA: Final = """
create schema if not exists turned;
create table if not exists turned.clock (ahead interval not null, ends_at timestamptz not null);
delete from turned.clock;
insert into turned.clock values (interval '0', '-infinity');
create or replace function turned.clock_timestamp() returns timestamptz language sql volatile as $$
    select pg_catalog.clock_timestamp()
           + case when pg_catalog.clock_timestamp() < ends_at then ahead else interval '0' end
      from turned.clock $$;
grant usage on schema turned to public;
grant select on turned.clock to public;
"""


class TurnedClock:
    """The clock of a system's ledger."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def turn(self, at: datetime) -> None:
        """Have it be `at` in the ledger from now on, and go on from there, for a minute or until the next turn."""
        self._connection.execute(
            "update turned.clock set ahead = %s - pg_catalog.clock_timestamp(),"
            " ends_at = pg_catalog.clock_timestamp() + make_interval(secs => %s)",
            [at, TURN_SECONDS_MAX],
        )


@contextlib.contextmanager
def turned_clock(system: System) -> Iterator[TurnedClock | None]:
    """Give the ledger's clock; at the end it is PostgreSQL's own again.

    Gives None where it cannot be turned: the ledger has accounts already, or we are no superuser of its database.
    """
    ledger = service_database(system.home, system.servers.database_url, "ledger")
    names = psycopg.conninfo.conninfo_to_dict(ledger.app_url)
    admin = psycopg.conninfo.make_conninfo(system.servers.database_url, dbname=names["dbname"])
    with contextlib.ExitStack() as stack:
        try:
            connection = stack.enter_context(psycopg.connect(admin, autocommit=True, connect_timeout=10))
        except psycopg.OperationalError:
            yield None
            return
        _leave(connection, str(names["user"]), str(names["dbname"]))
        if not _can_be_turned(connection):
            yield None
            return
        try:
            _enter(connection, str(names["user"]), str(names["dbname"]))
            yield TurnedClock(connection)
        finally:
            _leave(connection, str(names["user"]), str(names["dbname"]))


def _can_be_turned(connection: psycopg.Connection) -> bool:
    row = connection.execute(
        "select current_setting('is_superuser') = 'on' and not exists (select from accounts)"
    ).fetchone()
    return bool(row and row[0])


def _enter(connection: psycopg.Connection, role: str, database: str) -> None:
    connection.execute(_SCHEMA)
    connection.execute(
        sql.SQL("alter role {} in database {} set search_path = turned, pg_catalog, public").format(
            sql.Identifier(role), sql.Identifier(database)
        )
    )
    _reconnect(connection, role)


def _leave(connection: psycopg.Connection, role: str, database: str) -> None:
    """Undo the turning, of this demonstration or of one that was killed; without one, do nothing."""
    if connection.execute("select to_regnamespace('turned')").fetchone() == (None,):
        return
    connection.execute(
        sql.SQL("alter role {} in database {} reset search_path").format(sql.Identifier(role), sql.Identifier(database))
    )
    _reconnect(connection, role)
    connection.execute("drop schema turned cascade")


def _reconnect(connection: psycopg.Connection, role: str) -> None:
    connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", [role])
