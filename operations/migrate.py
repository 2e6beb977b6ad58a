"""Bring a service's database to its newest version: `python -m operations.migrate SERVICE`.

DATABASE_URL is the owner's; APP_ROLE is the role that the service's processes connect as. A table that a migration
makes is the app role's to read and write, unless the migration revokes it (R16).
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from operations.errors import OperationFailed
from operations.services import SERVICES

ENVIRONMENT = Path(__file__).resolve().parent / "migrations"
SERVICES_FOLDER = Path(__file__).resolve().parent.parent / "services"
LOCK_ID = 0x436F756E  # "Coun": two deployments migrate one after the other
DEFAULT_GRANTS = (
    "alter default privileges in schema public grant select, insert, update, delete on tables to {role}",
    "alter default privileges in schema public grant usage, select on sequences to {role}",
    "grant usage on schema public to {role}",
)


def versions_folder(service: str) -> Path:
    """Return where a service's migrations stand."""
    return SERVICES_FOLDER / service / "migrations"


def fingerprint(service: str) -> str:
    """Return a hash of all that decides what a service's migration would do."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in (*sorted(versions_folder(service).glob("*.py")), SERVICES_FOLDER.parent / "shared/kernel_tables.py"):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def upgrade(service: str, database_url: str, *, app_role: str | None = None, revision: str = "head") -> None:
    """Bring a database to a version of its service.

    Raises: OperationFailed.   Idempotent.
    """
    engine = sa.create_engine(sa.make_url(database_url).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    configuration = Config()
    configuration.set_main_option("script_location", _escaped(ENVIRONMENT))
    configuration.set_main_option("version_locations", _escaped(versions_folder(service)))
    configuration.set_main_option("path_separator", "newline")
    with engine.connect() as connection, _app_role(app_role):
        connection.execute(sa.text("select pg_advisory_lock(:id)"), {"id": LOCK_ID})
        for grant in DEFAULT_GRANTS if app_role else ():
            role = engine.dialect.identifier_preparer.quote(app_role or "")
            connection.execute(sa.text(grant.format(role=role)))
        connection.commit()
        configuration.attributes["connection"] = connection
        try:
            command.upgrade(configuration, revision)
        except (CommandError, sa.exc.DBAPIError) as error:
            raise OperationFailed(f"The migration of {service} failed: {error}") from error
        connection.commit()


@contextmanager
def _app_role(role: str | None) -> Iterator[None]:
    """Tell migrations the app role the way a deployment's environment does."""
    before = os.environ.pop("APP_ROLE", None)
    if role:
        os.environ["APP_ROLE"] = role
    try:
        yield
    finally:
        os.environ.pop("APP_ROLE", None)
        if before is not None:
            os.environ["APP_ROLE"] = before


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")


def main(arguments: list[str]) -> int:
    """Migrate the services named, in the databases of DATABASE_URL or <SERVICE>_DATABASE_URL."""
    for service in arguments or SERVICES:
        if service not in SERVICES:
            print(f"{service!r} is no service. Services: {', '.join(SERVICES)}.", file=sys.stderr)
            return 2
        url = os.environ.get(f"{service.upper()}_DATABASE_URL") or os.environ["DATABASE_URL"]
        try:
            upgrade(service, url, app_role=os.environ.get("APP_ROLE"))
        except OperationFailed as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
