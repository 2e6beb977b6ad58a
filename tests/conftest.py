"""What every test may use: a real PostgreSQL and RabbitMQ, migrated databases, and three people.

The servers come from DATABASE_URL and AMQP_URL, as `./countinghouse test` sets them; else from testcontainers.
"""

import os
import secrets
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from operations import migrate
from shared.passport import Passport
from shared.permissions import BUILT_IN_ROLES
from shared.rpc.wire import Call, current_call

AURORA, BOREALIS = "mer_aurora", "mer_borealis"


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The address of a PostgreSQL where databases may be made."""
    if url := os.environ.get("DATABASE_URL"):
        yield url
        return
    from testcontainers.postgres import PostgresContainer

    with PostgresContainer("postgres:16", driver=None) as container:
        yield container.get_connection_url()


@pytest.fixture(scope="session")
def amqp_url() -> Iterator[str]:
    """The address of a RabbitMQ virtual host that is ours alone."""
    if url := os.environ.get("AMQP_URL"):
        yield url
        return
    from testcontainers.rabbitmq import RabbitMqContainer

    with RabbitMqContainer("rabbitmq:3-management") as container:
        port = container.get_exposed_port(container.port)
        yield f"amqp://guest:guest@{container.get_container_host_ip()}:{port}/"


@pytest.fixture(scope="session")
def make_database(server_url: str) -> Iterator[Callable[[str], str]]:
    """Make the migrated database of a service, once a session. Returns: its address."""
    admin = sa.create_engine(_driver(server_url), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    made: dict[str, str] = {}

    def make(service: str) -> str:
        if service not in made:
            name = f"test_{service}_{secrets.token_hex(4)}"
            with admin.connect() as connection:
                connection.execute(sa.text(f'create database "{name}"'))
            made[service] = _driver(server_url).set(database=name).render_as_string(hide_password=False)
            migrate.upgrade(service, made[service])
        return made[service]

    yield make
    with admin.connect() as connection:
        for url in made.values():
            connection.execute(sa.text(f'drop database "{sa.make_url(url).database}" with (force)'))


def _driver(url: str) -> sa.URL:
    return sa.make_url(url).set(drivername="postgresql+psycopg")


@pytest.fixture(scope="session")
def engine_of(make_database: Callable[[str], str]) -> Iterator[Callable[[str], sa.Engine]]:
    """Give an engine on a service's database, for tests that commit or need connections of their own."""
    engines: dict[str, sa.Engine] = {}

    def give(service: str) -> sa.Engine:
        if service not in engines:
            engines[service] = sa.create_engine(make_database(service), pool_size=40)
        return engines[service]

    yield give
    for engine in engines.values():
        engine.dispose()


@pytest.fixture
def session_of(engine_of: Callable[[str], sa.Engine]) -> Iterator[Callable[[str], Session]]:
    """Give a session on a service's database, whose every change is rolled back after the test."""
    open_ones: list[tuple[Session, sa.Connection]] = []

    def give(service: str) -> Session:
        connection = engine_of(service).connect()
        connection.begin()
        session = Session(connection, join_transaction_mode="create_savepoint", expire_on_commit=False)
        open_ones.append((session, connection))
        return session

    yield give
    for session, connection in open_ones:
        session.close()
        connection.rollback()
        connection.close()


def person(name: str, role: str, merchants: frozenset[str] | None) -> Passport:
    """Return the passport of somebody with a built-in role."""
    return Passport(
        actor_id=f"usr_{name.lower()}",
        actor_name=name,
        actor_type="user",
        permissions=BUILT_IN_ROLES[role],
        merchants=merchants,
        session_id=f"ses_{name.lower()}",
        ip="127.0.0.1",
        user_agent="tests",
        request_id="req_test",
    )


@pytest.fixture
def alice() -> Passport:
    """An administrator who sees all merchants."""
    return person("Alice", "administrator", None)


@pytest.fixture
def bob() -> Passport:
    """An operator of the merchant Aurora."""
    return person("Bob", "operator", frozenset({AURORA}))


@pytest.fixture
def charlie() -> Passport:
    """An operator of the merchant Borealis: what is Aurora's does not exist for him."""
    return person("Charlie", "operator", frozenset({BOREALIS}))


@pytest.fixture(autouse=True)
def _call(request: pytest.FixtureRequest) -> Iterator[None]:
    """Be within a call of Alice's, so that use cases can tell of events."""
    call = Call(service="tests", method="run_test", passport=person("Alice", "administrator", None), arguments={})
    token = current_call.set(call)
    yield
    current_call.reset(token)
