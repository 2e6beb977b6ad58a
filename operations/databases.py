"""The database of each service, made by the administrator: its owner, its app role, and nobody else may connect (R29).

<SERVICE>_DATABASE_URL gives a service a database that exists already; then owner and app role are that URL's user.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from operations.errors import OperationFailed
from operations.home import Home
from operations.services import SERVICES

NAME_PREFIX = "countinghouse"


@dataclass(frozen=True)
class ServiceDatabase:
    """One service's database, seen by its owner and by its processes."""

    service: str
    owner_url: str
    app_url: str
    app_role: str | None


def service_database(home: Home, admin_url: str, service: str) -> ServiceDatabase:
    """Return a service's database: the one given for it, else one beside the administrator's."""
    given = home.given(f"{service.upper()}_DATABASE_URL")
    if given:
        return ServiceDatabase(service, given, given, None)
    app = f"{home.given('COUNTINGHOUSE_DATABASE_PREFIX') or NAME_PREFIX}_{service}"
    owner_url, app_url = (
        _with_user(admin_url, role, home.password(f"database:{role}"), database=app) for role in (_owner(app), app)
    )
    return ServiceDatabase(service, owner_url, app_url, app_role=app)


def service_databases(home: Home, admin_url: str) -> list[ServiceDatabase]:
    """Return the databases of all services."""
    return [service_database(home, admin_url, service) for service in SERVICES]


def _owner(app_role: str) -> str:
    return f"{app_role}_owner"


def create_databases(home: Home, admin_url: str, databases: Iterable[ServiceDatabase]) -> int:
    """Make what lacks of roles and databases, and close each database to everybody else.

    Returns: how many databases were made.   Raises: OperationFailed where another instance's databases stand.
    """
    made = 0
    with psycopg.connect(admin_url, autocommit=True, connect_timeout=10) as connection:
        for database in databases:
            if database.app_role is None:
                continue
            app = database.app_role
            for role in (_owner(app), app):
                _create_role(connection, role, home.password(f"database:{role}"))
            made += _create_database(connection, home, app)
    return made


def close_to_everybody(admin_url: str) -> None:
    """Let nobody but administrators connect to the databases that a fresh cluster brings."""
    with psycopg.connect(admin_url, autocommit=True, connect_timeout=10) as connection:
        for name in ("postgres", "template1"):
            connection.execute(sql.SQL("revoke all on database {} from public").format(sql.Identifier(name)))


def _create_role(connection: psycopg.Connection, role: str, password: str) -> None:
    # The server is given the password's SCRAM verifier, so that the password itself never stands in its log.
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    exists = connection.execute("select 1 from pg_roles where rolname = %s", [role]).fetchone()
    verb = sql.SQL("alter" if exists else "create")
    connection.execute(
        sql.SQL("{} role {} login nosuperuser nocreatedb nocreaterole password {}").format(
            verb, sql.Identifier(role), sql.Literal(verifier)
        )
    )


def _create_database(connection: psycopg.Connection, home: Home, name: str) -> bool:
    row = connection.execute(
        "select shobj_description(oid, 'pg_database') from pg_database where datname = %s", [name]
    ).fetchone()
    mark = f"countinghouse {home.identity}"
    if row:
        if row[0] not in (None, mark):
            raise OperationFailed(
                f"The database {name} belongs to another instance of Countinghouse. Give this one a server of its own, "
                "or names of its own by COUNTINGHOUSE_DATABASE_PREFIX."
            )
        return False
    database, app_role, owner = sql.Identifier(name), sql.Identifier(name), sql.Identifier(_owner(name))
    # A managed server's administrator is no superuser, and gives databases only to roles that it belongs to.
    connection.execute(sql.SQL("grant {} to current_user").format(owner))
    connection.execute(
        sql.SQL("create database {} owner {} encoding 'UTF8' template template0").format(database, owner)
    )
    connection.execute(sql.SQL("comment on database {} is {}").format(database, sql.Literal(mark)))
    connection.execute(sql.SQL("revoke all on database {} from public").format(database))
    connection.execute(sql.SQL("grant connect on database {} to {}").format(database, app_role))
    return True


def _with_user(url: str, user: str, password: str, *, database: str) -> str:
    """Return a URL with another user, password and database, its host and options kept."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(user)}:{quote(password)}@{host}", path=f"/{database}"))
