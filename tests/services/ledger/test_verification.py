"""The proof finds whatever a superuser's SQL can do to the ledger, names the row, and is never wrong otherwise."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from operations import migrate
from services.ledger.sums import fold_deltas
from services.ledger.verification import Mode, VerificationRunning, verify_ledger
from shared.contracts.ledger import VerificationView
from tests.services.ledger.conftest import Books, batch, change, post_all, single


def verify(books: Books, mode: Mode = "full") -> VerificationView:
    view: VerificationView = books.run(lambda session: verify_ledger(session, mode=mode))
    return view


@pytest.fixture
def posted(books: Books) -> Books:
    """Two users with ten entries each, half of them folded."""

    def post_some(session: Any) -> None:
        post_all(session, batch([change(user_id=f"user-{n % 2 + 1}", amount=f"{n}.00") for n in range(1, 11)]))

    books.run(post_some)
    books.run(fold_deltas)
    books.run(post_some)
    return books


def tamper(books: Books, *statements: str) -> None:
    """Do what only a superuser can, constraints off."""
    with books.engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def place(books: Books, user: str, version: int) -> str:
    """Return the id of an entry."""
    with books.engine.connect() as connection:
        account = connection.execute(sa.text("select id from accounts where holder_id = :u"), {"u": user}).scalar_one()
    return f"ent_{account}_{version}"


def test_untouched_ledger_is_proved(posted: Books) -> None:
    view = verify(posted)
    assert (view["ok"], view["accounts"], view["entries"], view["faults"]) == (True, 2, 20, [])


def test_empty_ledger_is_proved(books: Books) -> None:
    assert (verify(books)["ok"], verify(books, "incremental")["ok"]) == (True, True)


USER_1 = "account_id = (select id from accounts where holder_id = 'user-1')"


@pytest.mark.parametrize(
    "column",
    [
        "order_no = 'P-other'",
        "type = 324",
        "note = 'edited'",
        "actor_name = 'Mallory'",
        "created_at = created_at + interval '1 microsecond'",
        "reason = 'edited'",
        "channel = 'edited'",
        "request_id = 'edited'",
        "counter_account = 'adjustments'",
    ],
)
def test_changed_row_is_named(posted: Books, column: str) -> None:
    tamper(posted, f"update entries set {column} where {USER_1} and version = 4")
    view = verify(posted)
    assert not view["ok"]
    assert ("changed", place(posted, "user-1", 4)) in [(f["kind"], f["entry_id"]) for f in view["faults"]]
    assert {f["entry_id"] for f in view["faults"]} <= {place(posted, "user-1", 4), None}


def test_changed_amount_is_named_though_the_row_adds_up(posted: Books) -> None:
    tamper(
        posted,
        f"update entries set amount = amount + 100, balance_after = balance_after + 100 where {USER_1} and version = 4",
    )
    found = {(f["kind"], f["entry_id"]) for f in verify(posted)["faults"]}
    assert {("changed", place(posted, "user-1", 4)), ("chain", place(posted, "user-1", 5))} <= found


def test_row_that_does_not_add_up_is_named(posted: Books) -> None:
    tamper(
        posted,
        "alter table entries drop constraint ck_entries_chain",
        f"update entries set amount = amount + 100 where {USER_1} and version = 4",
    )
    assert ("sum", place(posted, "user-1", 4)) in {(f["kind"], f["entry_id"]) for f in verify(posted)["faults"]}


def test_deleted_row_shows_at_the_next(posted: Books) -> None:
    tamper(posted, f"delete from entries where {USER_1} and version = 4")
    [gap, *_] = verify(posted)["faults"]
    assert (gap["kind"], gap["entry_id"]) == ("gap", place(posted, "user-1", 5))
    assert "4 to 4" in gap["detail"]


def test_cut_off_tail_is_found(posted: Books) -> None:
    tamper(posted, f"delete from entries where {USER_1} and version = 10")
    assert "account" in {f["kind"] for f in verify(posted)["faults"]}


def test_cut_off_tail_with_the_account_put_back_is_found(posted: Books) -> None:
    tamper(
        posted,
        f"delete from entries where {USER_1} and version = 10",
        f"update accounts a set version = 9, balance = e.balance_after, digest = e.digest from entries e"
        f" where e.account_id = a.id and e.version = 9 and e.{USER_1}",
    )
    assert {"trial_balance", "system_account"} <= {f["kind"] for f in verify(posted)["faults"]}


def test_inserted_row_is_named(posted: Books) -> None:
    columns = (
        "account_id, amount, balance_before, balance_after, created_at, type, merchant_id, holder_type, holder_id,"
        " currency, counter_account, order_no, actor_id, actor_name, actor_type, request_id, digest"
    )
    tamper(
        posted,
        f"insert into entries (version, {columns}) select 11, {columns} from entries where {USER_1} and version = 10",
    )
    found = {(f["kind"], f["entry_id"]) for f in verify(posted)["faults"]}
    assert {("changed", place(posted, "user-1", 11)), ("chain", place(posted, "user-1", 11))} <= found


def test_changed_balance_is_found_incrementally_too(posted: Books) -> None:
    assert verify(posted, "incremental")["ok"]
    tamper(posted, "update accounts set balance = balance + 1 where holder_id = 'user-1'")
    for mode in ("incremental", "full"):
        assert {"account", "trial_balance"} <= {f["kind"] for f in verify(posted, mode)["faults"]}  # type: ignore[arg-type]


def test_changed_total_is_found(posted: Books) -> None:
    tamper(posted, "update hourly_totals set increase = increase + 1")
    assert [f["kind"] for f in verify(posted)["faults"]] == ["hourly_total"]


def test_entries_of_an_account_that_is_gone_are_found(posted: Books) -> None:
    tamper(posted, "delete from accounts where holder_id = 'user-1'")
    assert "orphan" in {f["kind"] for f in verify(posted)["faults"]}


def test_incremental_proof_goes_on_from_the_last(posted: Books) -> None:
    assert verify(posted)["entries"] == 20
    assert verify(posted, "incremental")["entries"] == 0
    posted.run(lambda session: post_all(session, single(change(user_id="user-2"))))
    view = verify(posted, "incremental")
    assert (view["ok"], view["accounts"], view["entries"]) == (True, 1, 1)


def test_fault_stays_found_until_it_is_mended(posted: Books) -> None:
    tamper(posted, f"update entries set note = 'x' where {USER_1} and version = 4")
    assert not verify(posted)["ok"]
    assert not verify(posted, "incremental")["ok"]
    tamper(posted, f"update entries set note = null where {USER_1} and version = 4")
    assert verify(posted, "incremental")["ok"]


def test_only_one_proof_runs(posted: Books) -> None:
    with posted.engine.begin() as connection:
        connection.execute(sa.text("select pg_advisory_xact_lock(hashtext('verify_ledger'))"))
        with pytest.raises(VerificationRunning):
            verify(posted)


def test_posting_meanwhile_is_no_fault(posted: Books) -> None:
    def post_on(n: int) -> None:
        posted.run(lambda session: post_all(session, single(change(user_id=f"user-{n % 2 + 1}"))))
        if n % 10 == 0:
            posted.run(fold_deltas)

    with ThreadPoolExecutor(4) as pool:
        postings = [pool.submit(post_on, n) for n in range(200)]
        views = [verify(posted, mode) for mode in ("full", "incremental") * 4]  # type: ignore[arg-type]
        for posting in postings:
            posting.result()
    assert [view["faults"] for view in views] == [[]] * 8
    assert verify(posted)["ok"]


def test_app_role_can_only_add_entries(server_url: str) -> None:
    admin = sa.create_engine(sa.make_url(server_url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text("create role ledger_app_test"))
        connection.execute(sa.text("create database test_ledger_app"))
    url = admin.url.set(database="test_ledger_app")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        migrate.upgrade("ledger", url.render_as_string(hide_password=False), app_role="ledger_app_test")
        books = Books(engine)

        def as_app(session: Any) -> None:
            session.execute(sa.text("set local role ledger_app_test"))
            post_all(session, single(change()))
            fold_deltas(session)

        def verify_as_app(session: Any) -> VerificationView:
            session.execute(sa.text("set local role ledger_app_test"))
            return verify_ledger(session, mode="full")

        books.run(as_app)
        assert books.run(verify_as_app)["ok"]
        with engine.connect() as connection:
            partitions = connection.execute(
                sa.text("select inhrelid::regclass::text from pg_inherits where inhparent = 'entries'::regclass")
            ).scalars()
            tables = ["entries", *partitions]
            assert len(tables) >= 5
            for table in tables:
                for act in (f"update {table} set note = 'x'", f"delete from {table}", f"truncate {table}"):
                    with connection.begin_nested() as savepoint:
                        connection.execute(sa.text("set local role ledger_app_test"))
                        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
                            connection.execute(sa.text(act))
                        savepoint.rollback()
            with connection.begin_nested():
                connection.execute(sa.text("set local role ledger_app_test"))
                connection.execute(sa.text("select create_entry_partitions(4)"))
    finally:
        engine.dispose()
        with admin.connect() as connection:
            connection.execute(sa.text("drop database test_ledger_app with (force)"))
            connection.execute(sa.text("drop role ledger_app_test"))
        admin.dispose()


def test_partition_made_late_takes_what_went_by_the_default(posted: Books) -> None:
    later = "date_trunc('month', now() at time zone 'UTC') + interval '5 months'"
    tamper(posted, f"update entries set created_at = {later} + interval '1 day' where {USER_1}")
    with posted.engine.begin() as connection:
        assert connection.execute(sa.text("select count(*) from entries_default")).scalar_one() == 10
        connection.execute(sa.text("select create_entry_partitions(6)"))
        assert connection.execute(sa.text("select count(*) from entries_default")).scalar_one() == 0
        assert connection.execute(sa.text("select count(*), sum(version) from entries")).one() == (20, 110)
        keys = connection.execute(
            sa.text("select count(*) from pg_indexes where tablename = to_char(:m, '\"entries_\"YYYY_MM')"),
            {"m": connection.execute(sa.text(f"select {later}")).scalar_one()},
        ).scalar_one()
        assert keys == 6  # the primary key and the five indexes of the parent


def test_incremental_proof_that_finds_nothing_is_no_news(posted: Books) -> None:
    assert verify(posted, "incremental")["ok"]
    with posted.engine.connect() as connection:
        told = connection.execute(sa.text("select 1 from outbox where routing_key = 'ledger.LedgerVerified'"))
        assert told.first() is None


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_proof_that_fails_is_told_of(posted: Books, mode: Mode) -> None:
    tamper(posted, f"update entries set note = 'x' where {USER_1} and version = 4")
    verify(posted, mode)
    with posted.engine.connect() as connection:
        envelopes = connection.execute(
            sa.text("select envelope from outbox where routing_key = 'ledger.LedgerVerified'")
        ).scalars()
        [envelope] = [orjson.loads(text) for text in envelopes]
    assert envelope["payload"]["ok"] is False
    assert envelope["payload"]["faults"][0]["entry_id"] == place(posted, "user-1", 4)


def test_what_is_due_is_all_of_it_while_that_is_quick(posted: Books) -> None:
    due: Any = "due"
    assert [verify(posted, due)["mode"] for _ in range(2)] == ["full", "full"]


def test_what_is_due_is_what_is_new_where_all_of_it_takes_long(posted: Books) -> None:
    due: Any = "due"
    assert verify(posted, due)["mode"] == "full"
    tamper(posted, "update proofs set seconds = 31")
    assert verify(posted, due)["mode"] == "incremental"
    tamper(posted, "update proofs set finished_at = now() - interval '25 hours' where mode = 'full'")
    assert verify(posted, due)["mode"] == "full"
