"""A service's database, as a Nameko dependency: transactions, retries of what the database asks to retry, the relay.

psycopg waits with `select`, which eventlet makes cooperative (`shared/runner.py` sets that before the import), so a
long statement stops its own caller and nobody else; `check_cooperative` proves it at each start.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import eventlet
import sqlalchemy as sa
import structlog
from nameko.extensions import DependencyProvider
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from shared import outbox
from shared.config import process_config
from shared.errors import Unavailable
from shared.process import Publisher

log = structlog.get_logger(__name__)

ATTEMPTS_MAX = 5
CONNECTION_WAIT_SECONDS_MAX = 5
STATEMENT_TIMEOUT_MS = 30_000
LOCK_TIMEOUT_MS = 10_000
SERIALIZATION_FAILURE, DEADLOCK, LOCK_NOT_AVAILABLE = "40001", "40P01", "55P03"
Result = TypeVar("Result")


class DatabaseUnavailable(Unavailable):
    """The database does not answer right now; nothing was changed."""


def make_engine(database_url: str, *, connections_max: int) -> sa.Engine:
    """Return an engine over psycopg, whose connections cannot hang, hold locks for ever, or be more than so many."""
    return sa.create_engine(
        sa.make_url(database_url).set(drivername="postgresql+psycopg"),
        pool_size=connections_max,
        max_overflow=0,
        pool_timeout=CONNECTION_WAIT_SECONDS_MAX,
        hide_parameters=True,  # an error that quotes its statement must not quote what people sent
        connect_args={
            "connect_timeout": 3,
            "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}"
            " -c idle_in_transaction_session_timeout=60000 -c timezone=UTC",
        },
    )


# A busy machine may let the whole process stand still for as long as the first of them takes.
_STATEMENT_SECONDS: Final = (0.1, 2.0)


def check_cooperative(engine: sa.Engine) -> None:
    """Refuse to start where a statement would stop the whole service.

    Raises: RuntimeError.
    """
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while True:
            eventlet.sleep(0.01)
            ticks += 1

    ticker = eventlet.spawn(tick)
    with engine.connect() as connection:
        for seconds in _STATEMENT_SECONDS:
            before = ticks
            connection.execute(sa.text("select pg_sleep(:seconds)"), {"seconds": seconds})
            if ticks > before:
                break
    ticker.kill()
    if ticks == before:
        raise RuntimeError("psycopg stops the event loop: PSYCOPG_WAIT_FUNC=wait_select must be set before its import")


def sqlstate(error: BaseException) -> str | None:
    """Return PostgreSQL's code of a database error, or None."""
    return getattr(getattr(error, "orig", None), "sqlstate", None)


def asks_to_retry(error: DBAPIError) -> bool:
    """Return whether the same transaction may succeed when done again: it lost to another, and did nothing."""
    if sqlstate(error) in (SERIALIZATION_FAILURE, DEADLOCK):
        return True
    # Two requests with one idempotency key, so close that neither saw the other: the loser finds the answer.
    diagnostics = getattr(error.orig, "diag", None)
    return getattr(diagnostics, "constraint_name", None) == "idempotency_keys_pkey"


class Database(DependencyProvider):
    """The service's own database. Injected as itself."""

    publisher = Publisher()

    def setup(self) -> None:
        config = process_config()
        self.engine = make_engine(config.database_url, connections_max=config.database_connections_max)

    def start(self) -> None:
        self.relay = outbox.Relay(self.engine, self.publisher.confirmed)
        try:
            check_cooperative(self.engine)
        except OperationalError as error:
            log.warning("database does not answer yet", error=str(error).split("\n")[0])
        self.relay.start()

    def stop(self) -> None:
        self.relay.stop()
        self.engine.dispose()

    def get_dependency(self, worker_ctx: Any) -> "Database":
        return self

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Give a session that is committed at the end, or rolled back by whatever is raised.

        Raises: DatabaseUnavailable where the database cannot be reached.
        """
        session = Session(self.engine, expire_on_commit=False)
        try:
            yield session
            session.commit()
        except (OperationalError, sa.exc.TimeoutError) as error:
            if isinstance(error, DBAPIError) and asks_to_retry(error):
                raise
            log.warning("database does not answer", error=str(error).split("\n")[0])
            raise DatabaseUnavailable(retry_after_seconds=1) from error
        finally:
            session.close()  # rolls back what was not committed
        if outbox.has_events(session):
            self.relay.wake()

    def run(self, work: Callable[[Session], Result]) -> Result:
        """Do the work in a transaction of its own, again where the database asks for that.

        Raises: what the work raises; DatabaseUnavailable.
        """
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                with self.transaction() as session:
                    return work(session)
            except DBAPIError as error:
                if attempt == ATTEMPTS_MAX or not asks_to_retry(error):
                    raise
                time.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311  # spreads rivals, guards nothing
        raise AssertionError("unreachable")
