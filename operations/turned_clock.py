"""The ledger's clock, turned to past days, so that a demonstration's orders live through them.

No route makes an order of last month, and none should. So the administrator of the database puts a function
`clock_timestamp` before PostgreSQL's own on the search path of the ledger's role: what the ledger then posts, settles
and refunds has the turned instant, in the entries' chains and sums too, and proves like anything else. A demonstration
turns only a ledger without an account, so that nothing of anybody's is touched. However the turning ends, also by a
kill, the clock is PostgreSQL's own again soon after, since each turn ends by itself.
"""

import contextlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import psycopg
from psycopg import sql

from operations.databases import service_database
from operations.system import System

TURN_LASTS: Final = timedelta(minutes=1)
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
    """The clock of a system's ledger: begun, turned as often as one likes, ended."""

    def __init__(
        self, connection: psycopg.Connection, *, role: str, database: str, turn_lasts: timedelta = TURN_LASTS
    ) -> None:
        self._connection, self._turn_lasts = connection, turn_lasts
        self._names = {"role": sql.Identifier(role), "database": sql.Identifier(database)}
        self._role = role

    def may_begin(self) -> bool:
        """Return whether the ledger has no account yet, and we are a superuser of its database."""
        row = self._connection.execute(
            "select current_setting('is_superuser') = 'on' and not exists (select from accounts)"
        ).fetchone()
        return bool(row and row[0])

    def begin(self) -> None:
        """Have the ledger look at this clock, which is right until it is turned."""
        self._connection.execute(_SCHEMA)
        self._connection.execute(
            sql.SQL("alter role {role} in database {database} set search_path = turned, pg_catalog, public").format(
                **self._names
            )
        )
        self._reconnect()

    def turn(self, at: datetime) -> None:
        """Have it be `at` in the ledger from now on, and go on from there, for a while or until the next turn."""
        self._connection.execute(
            "update turned.clock set ahead = %s - pg_catalog.clock_timestamp(),"
            " ends_at = pg_catalog.clock_timestamp() + %s",
            [at, self._turn_lasts],
        )

    def end(self) -> None:
        """Undo the turning, this one or one that was killed; without one, do nothing."""
        if self._connection.execute("select to_regnamespace('turned')").fetchone() == (None,):
            return
        self._connection.execute(
            sql.SQL("alter role {role} in database {database} reset search_path").format(**self._names)
        )
        self._reconnect()
        self._connection.execute("drop schema turned cascade")

    def _reconnect(self) -> None:
        """Cut the ledger's connections: a path is looked at when one is made."""
        self._connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", [self._role]
        )


@contextlib.contextmanager
def clock_of(system: System, *, turn_lasts: timedelta = TURN_LASTS) -> Iterator[TurnedClock]:
    """Give the clock of a system's ledger, whatever is in it; at the end it is PostgreSQL's own again.

    Raises: psycopg.OperationalError when the database's administrator cannot connect.
    """
    ledger = service_database(system.home, system.servers.database_url, "ledger")
    names = psycopg.conninfo.conninfo_to_dict(ledger.app_url)
    admin = psycopg.conninfo.make_conninfo(system.servers.database_url, dbname=names["dbname"])
    with psycopg.connect(admin, autocommit=True, connect_timeout=10) as connection:
        clock = TurnedClock(connection, role=str(names["user"]), database=str(names["dbname"]), turn_lasts=turn_lasts)
        clock.end()
        try:
            yield clock
        finally:
            clock.end()


@contextlib.contextmanager
def turned_clock(system: System) -> Iterator[TurnedClock | None]:
    """Give the ledger's clock, begun; None where it cannot be turned."""
    with contextlib.ExitStack() as stack:
        try:
            clock = stack.enter_context(clock_of(system))
        except psycopg.OperationalError:
            yield None
            return
        if not clock.may_begin():
            yield None
            return
        clock.begin()
        yield clock
