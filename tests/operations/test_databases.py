"""Databases: each service's own, closed to every other, and its processes are not its owner."""

import psycopg
import pytest

from operations import databases as subject
from operations.errors import OperationFailed


@pytest.fixture(scope="module")
def databases(servers):
    """The databases of all services on the private server."""
    rows = subject.service_databases(servers.home, servers.servers.database_url)
    subject.create_databases(servers.home, servers.servers.database_url, rows)
    return {row.service: row for row in rows}


def test_making_them_again_makes_nothing(servers, databases):
    assert subject.create_databases(servers.home, servers.servers.database_url, databases.values()) == 0


def test_app_role_reads_and_writes_what_the_owner_makes_after_the_grants(databases):
    from operations import migrate

    ledger = databases["ledger"]
    with psycopg.connect(ledger.owner_url, autocommit=True) as owner:
        for grant in migrate.DEFAULT_GRANTS:
            owner.execute(grant.format(role=ledger.app_role))
        owner.execute("create table if not exists proof (id bigint generated always as identity, word text)")

    with psycopg.connect(ledger.app_url) as app:
        app.execute("insert into proof (word) values ('here')")
        assert app.execute("select word from proof").fetchone() == ("here",)


def test_app_role_makes_no_table(databases):
    with psycopg.connect(databases["cards"].app_url) as app, pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("create table smuggled (id int)")


def test_service_cannot_connect_to_the_database_of_another(databases):
    ledger, cards = databases["ledger"].app_url, databases["cards"].app_url
    foreign = ledger.rpartition("/")[0] + "/" + cards.rpartition("/")[2]

    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(foreign)


@pytest.mark.parametrize("name", ["postgres", "template1"])
def test_service_cannot_connect_to_the_databases_of_the_cluster(servers, databases, name):
    subject.close_to_everybody(servers.servers.database_url)

    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(databases["ledger"].app_url.rpartition("/")[0] + f"/{name}")


def test_password_never_stands_in_the_servers_log(servers, databases):
    log = (servers.home.logs / "postgres.log").read_text()

    assert servers.home.password("database:countinghouse_ledger") not in log


def test_database_of_another_instance_is_refused(servers, databases, tmp_path):
    from operations.home import Home

    stranger = Home(tmp_path)
    rows = subject.service_databases(stranger, servers.servers.database_url)

    with pytest.raises(OperationFailed, match="belongs to another instance"):
        subject.create_databases(stranger, servers.servers.database_url, rows[:1])


def test_given_database_is_used_as_it_is(tmp_path):
    from operations.home import Home

    home = Home(tmp_path)
    home.take_given({"LEDGER_DATABASE_URL": "postgresql://me:secret@db.example:5433/money"})

    row = subject.service_database(home, "postgresql://admin@127.0.0.1/postgres", "ledger")

    assert (row.app_url, row.app_role) == ("postgresql://me:secret@db.example:5433/money", None)
