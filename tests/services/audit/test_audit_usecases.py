"""Recording events: each once, numbered without a gap, by many writers, in tables that only grow."""

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from sqlalchemy import text
from sqlalchemy.orm import Session

from operations import migrate
from services.audit import usecases
from services.audit.verification import verify_chain
from shared.passport import Passport
from tests.services.audit.envelopes import api_call, balances_changed, entry, envelope, some_day


def seqs(session: Session) -> list[int]:
    return list(session.scalars(text("select seq from log_rows order by seq")))


def test_batch_writes_each_event_s_rows_numbered_in_their_order(session: Session, record: Callable[..., int]) -> None:
    written = record(envelope(payload={"changes": {"a": {"before": 1, "after": 2}}}), api_call())
    assert written == 3
    rows = session.execute(text("select seq, log_type, part from log_rows order by seq")).all()
    assert [tuple(row) for row in rows] == [(1, "operation", 0), (2, "data_change", 1), (3, "api_call", 0)]


def test_event_that_comes_again_adds_nothing(session: Session, record: Callable[..., int]) -> None:
    first, second = envelope(), balances_changed([entry(1), entry(2)])
    assert record(first, second, first) == 3
    assert record(second) == 0
    assert record(first, third := api_call(), third) == 1
    assert seqs(session) == [1, 2, 3, 4]


def test_batch_of_nothing_is_nothing(record: Callable[..., int]) -> None:
    assert record() == 0


def test_balance_changes_of_five_hundred_entries_are_as_many_rows_in_one_chain(
    session: Session, record: Callable[..., int], alice: Passport
) -> None:
    events = [balances_changed([entry(n) for n in range(500)]) for _ in range(10)]  # more than one COPY takes
    assert record(*events) == 5_000
    assert verify_chain(session, alice)["checked"] == 5_000
    found = session.scalar(text("select count(*) from log_rows where order_no = 'P2026000007'"))
    assert found == 10


@pytest.mark.parametrize("at", [datetime(2031, 2, 3, tzinfo=UTC), datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC)])
def test_event_of_a_month_without_a_partition_gets_one(
    session: Session, record: Callable[..., int], at: datetime
) -> None:
    record(envelope(at=at))
    partition = session.scalar(text("select tableoid::regclass::text from log_rows"))
    assert partition == f"log_rows_{at:%Y_%m}"


def test_partition_keeps_statistics_by_which_a_rare_word_is_known_as_rare(session: Session) -> None:
    targets = session.scalars(
        text(
            "select attstattarget from pg_attribute join pg_inherits on inhrelid = attrelid"
            " where inhparent = 'log_rows'::regclass and attname = 'search_text'"
        )
    )
    assert set(targets) == {1000}


def test_partitions_are_made_ahead_of_their_time(session: Session) -> None:
    usecases.make_partitions(session)
    usecases.make_partitions(session)
    now = session.scalar(text("select now() at time zone 'UTC'"))
    following = f"log_rows_{now.year + now.month // 12}_{now.month % 12 + 1:02}"
    assert session.scalar(text("select to_regclass(:name)::text"), {"name": following}) == following


@pytest.fixture
def committed(engine_of: Callable[[str], sa.Engine]) -> Iterator[sa.Engine]:
    """Give an engine to commit with, and take back what was committed."""
    engine = engine_of("audit")
    yield engine
    with engine.begin() as connection:
        connection.execute(text("truncate log_rows"))
        connection.execute(text("update chain_state set last_seq = 0, last_hash = decode(repeat('00', 32), 'hex')"))


def test_writers_at_once_make_one_chain_without_a_gap(committed: sa.Engine, alice: Passport) -> None:
    shared_event = envelope()

    def write(_number: int) -> int:
        with Session(committed) as session, session.begin():
            return usecases.record_events(session, [envelope(), shared_event, api_call()])

    with ThreadPoolExecutor(8) as threads:
        written = sum(threads.map(write, range(40)))
    with Session(committed) as session:
        assert written == 40 * 2 + 1
        assert seqs(session) == list(range(1, written + 1))
        assert verify_chain(session, alice)["ok"]


def test_batch_that_fails_leaves_no_row_and_no_number_behind(committed: sa.Engine, alice: Passport) -> None:
    with Session(committed) as session:
        usecases.record_events(session, [envelope()])
        session.rollback()
        usecases.record_events(session, [envelope()])
        session.commit()
        assert seqs(session) == [1]
        assert verify_chain(session, alice)["ok"]


@pytest.fixture(scope="module")
def as_application(server_url: str) -> Iterator[sa.Engine]:
    """Give an engine of the role that the service's processes connect as, on a database that its owner migrated."""
    name, owner, role = (f"test_audit_{kind}_{secrets.token_hex(4)}" for kind in ("db", "owner", "app"))
    url = sa.make_url(server_url).set(drivername="postgresql+psycopg")
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    password = secrets.token_hex(8)
    with admin.connect() as connection:
        for user in (owner, role):
            connection.execute(text(f"create role {user} login password '{password}'"))
        connection.execute(text(f"create database {name} owner {owner}"))
    of_owner = url.set(database=name, username=owner, password=password)
    migrate.upgrade("audit", of_owner.render_as_string(hide_password=False), app_role=role)
    engine = sa.create_engine(url.set(database=name, username=role, password=password))
    yield engine
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(text(f"drop database {name} with (force)"))
        for user in (role, owner):
            connection.execute(text(f"drop role {user}"))


def test_application_writes_and_checks_rows_also_of_months_to_come(as_application: sa.Engine, alice: Passport) -> None:
    with Session(as_application) as session, session.begin():
        usecases.make_partitions(session)
        late, early = envelope(at=datetime(2032, 5, 1, tzinfo=UTC)), envelope(at=some_day(1))
        usecases.record_events(session, [envelope(), early, late])
        assert verify_chain(session, alice)["ok"]


@pytest.mark.parametrize(
    "statement",
    [
        "update log_rows set message = ''",
        "delete from log_rows",
        "truncate log_rows",
        "drop table log_rows",
        "update log_rows_2032_05 set message = ''",
        "delete from log_rows_2032_05",
        "alter table log_rows detach partition log_rows_2032_05",
        "delete from chain_state",
        "insert into chain_state (is_only_row, last_seq, last_hash) values (false, 1, '')",
    ],
)
def test_application_may_not_touch_what_is_written(as_application: sa.Engine, statement: str) -> None:
    with as_application.connect() as connection:
        connection.execute(text("select make_log_partition('2032-05-01')"))
        with pytest.raises(sa.exc.ProgrammingError, match=r"permission denied|must be owner"):
            connection.execute(text(statement))
