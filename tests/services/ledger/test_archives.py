"""Entries leave the log for archives, every account still proves, and an archive can be read back."""

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from importlib import import_module
from threading import Event
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from services.ledger.domain.archives import is_due, is_over
from services.ledger.queries import archives as queries
from services.ledger.queries import entries as entry_queries
from services.ledger.sums import create_partitions, fold_deltas
from services.ledger.usecases import archives
from services.ledger.usecases.postings import FIRST_TIME, log_filter
from services.ledger.verification import Mode, verify_ledger
from shared.contracts.archives import (
    ArchiveNotFound,
    ArchiveView,
    ArchivingRunning,
    LogNotProved,
    MonthEmpty,
    MonthNotNext,
    MonthNotOver,
)
from shared.contracts.ledger import InsufficientBalance, RefundTooLarge
from shared.errors import InvalidRequest, PermissionDenied
from shared.paging import InvalidCursor, encode_cursor
from shared.passport import Passport
from shared.times import utc_now
from tests.conftest import AURORA, BOREALIS
from tests.services.ledger.conftest import Books, batch, change, post_all, result_of, single
from tests.services.ledger.orders import create, refund, settle

THIS_MONTH = utc_now().date().replace(day=1)
NEXT_MONTH = (THIS_MONTH + timedelta(days=31)).replace(day=1)


_ACCOUNTS = "select id, balance, version, digest from accounts order by id"


def archive(books: Books, month: date = THIS_MONTH) -> ArchiveView:
    """Archive a month, as if it were over: entries have the database's clock, which no test turns."""
    view: ArchiveView = books.run(
        lambda session: archives.archive_entries(
            session, month=month, reason="old", actor_id="usr_alice", actor_name="Alice", today=NEXT_MONTH
        )
    )
    return view


def verify(books: Books, mode: Mode = "full") -> list[str]:
    faults = books.run(lambda session: verify_ledger(session, mode=mode))["faults"]
    return [fault["detail"] for fault in faults]


def proof(books: Books, passport: Passport, archive_id: str) -> Any:
    return books.run(lambda session: queries.verify_archive(session, passport, archive_id=archive_id))


@pytest.fixture
def posted(books: Books) -> Books:
    """Aurora's two users and Borealis' one, with twelve entries; half of them folded."""

    def post_some(session: Session) -> None:
        post_all(session, batch([change(user_id=f"user-{n % 2 + 1}", amount=f"{n}.00") for n in range(1, 6)]))
        post_all(session, single(change(merchant_id=BOREALIS, user_id="user-9", amount="7.00", order_no="B1")))

    books.run(post_some)
    books.run(fold_deltas)
    books.run(post_some)
    return books


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of four entries, so that accounts go over their edges."""
    monkeypatch.setattr(archives, "PART_ENTRIES", 4)


def test_month_leaves_the_log_and_every_account_still_proves(posted: Books) -> None:
    with posted.engine.connect() as connection:
        before = connection.execute(sa.text(_ACCOUNTS)).all()
    view = archive(posted)
    assert (view["number"], view["month"], view["entries"]) == (1, f"{THIS_MONTH:%Y-%m}", 12)
    assert (view["accounts"], view["parts"]) == (3, 3)
    with posted.engine.connect() as connection:
        assert connection.execute(sa.text("select count(*) from entries")).scalar_one() == 0
        assert (
            connection.execute(sa.text("select id, balance, version, digest from accounts order by id")).all() == before
        )
    assert (verify(posted), verify(posted, "incremental")) == ([], [])


def test_accounts_go_on_from_where_their_entries_left(posted: Books) -> None:
    archive(posted)
    posted.run(create_partitions)
    [outcome] = posted.run(lambda session: post_all(session, single(change(user_id="user-1", amount="1.00"))))
    assert (result_of(outcome)["version"], result_of(outcome)["balance"]) == (5, "13.00")
    taken = change(user_id="user-1", type=323, amount="-13.01")
    assert isinstance(posted.run(lambda session: post_all(session, single(taken)))[0], InsufficientBalance)
    assert (verify(posted), verify(posted, "incremental")) == ([], [])


def test_entry_after_an_archive_is_proved_against_it(posted: Books) -> None:
    archive(posted)
    posted.run(create_partitions)
    posted.run(lambda session: post_all(session, single(change(user_id="user-1", amount="1.00"))))
    with posted.engine.begin() as connection:
        connection.execute(sa.text("update archived_openings set balance = balance - 1 where balance = 1200"))
    assert any("began" in d or "begins at 1200" in d for d in verify(posted))


@pytest.mark.parametrize(
    "tampering",
    [
        "update archive_parts set sha256 = sha256('x') where part = 2",
        "delete from archive_parts where part = 2",
        "update archive_totals set entries = entries + 1 where merchant_id = 'mer_borealis'",
        "update archives set digest = sha256('x')",
        "update archives set entries = entries + 1",
    ],
)
def test_touched_archive_is_named_by_the_proof(posted: Books, tampering: str) -> None:
    view = archive(posted)
    with posted.engine.begin() as connection:
        assert connection.execute(sa.text(tampering.replace("mer_borealis", BOREALIS))).rowcount == 1
    assert any(view["archive_id"] in detail for detail in verify(posted))


def test_archive_reads_back_as_what_left(posted: Books, alice: Passport) -> None:
    def read(session: Session) -> list[Any]:
        wanted = _everything()
        return entry_queries.list_balance_logs(session, alice, wanted, limit=100, cursor=None)["items"]

    before = posted.run(read)
    view = archive(posted)
    assert proof(posted, alice, view["archive_id"]) == {
        "archive_id": view["archive_id"],
        "ok": True,
        "entries": 12,
        "faults": [],
    }
    after = _read_back(posted, alice)
    assert sorted(after, key=lambda e: e["entry_id"]) == sorted(before, key=lambda e: e["entry_id"])


def test_archive_of_other_content_is_no_proof(posted: Books, alice: Passport) -> None:
    view = archive(posted)
    with posted.engine.begin() as connection:
        connection.execute(
            sa.text(
                "update archive_parts set content = (select content from archive_parts where part = 1) where part = 2"
            )
        )
    found = proof(posted, alice, view["archive_id"])
    assert not found["ok"]
    assert "Part 2 is not what was archived." in found["faults"]


def test_second_archive_is_chained_to_the_first(posted: Books, alice: Passport) -> None:
    first = archive(posted)
    posted.run(lambda session: post_all(session, single(change(user_id="user-1", amount="1.00"))))
    second = archive(posted)  # what came into the default partition of a month that had left already
    assert (second["number"], second["entries"], second["accounts"]) == (2, 1, 1)
    assert verify(posted) == []
    assert [proof(posted, alice, a["archive_id"])["ok"] for a in (first, second)] == [True, True]
    with posted.engine.begin() as connection:
        connection.execute(sa.text("update archives set previous_digest = sha256('x') where number = 2"))
    assert any("does not follow" in detail for detail in verify(posted))


def test_reading_back_is_cut_to_the_callers_merchants(posted: Books, bob: Passport, charlie: Passport) -> None:
    view = archive(posted)
    assert {e["merchant_id"] for e in _read_back(posted, bob)} == {AURORA}
    assert [e["user_id"] for e in _read_back(posted, charlie)] == ["user-9", "user-9"]
    assert _read_back(posted, charlie, merchant_id=AURORA) == []
    for passport in (bob, charlie):
        with pytest.raises(PermissionDenied):
            posted.run(lambda session, p=passport: queries.list_archives(session, p, limit=5, cursor=None))
        with pytest.raises(PermissionDenied):
            proof(posted, passport, view["archive_id"])


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"user_id": "user-1"}, 4),
        ({"user_id": "user-2"}, 6),
        ({"user_id": "nobody"}, 0),
        ({"merchant_id": BOREALIS}, 2),
        ({"order_no": "B1"}, 2),
        ({"order_no": "B1", "user_id": "user-1"}, 0),
    ],
)
def test_reading_back_is_filtered(posted: Books, alice: Passport, filters: dict[str, str], count: int) -> None:
    archive(posted)
    assert len(_read_back(posted, alice, **filters)) == count


@pytest.mark.parametrize("limit", [1, 3, 12, 500])
def test_pages_of_any_size_have_each_entry_once(
    posted: Books, alice: Passport, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "PARTS_READ_MAX", 2)
    archive(posted)
    found = [e["entry_id"] for e in _read_back(posted, alice, limit=limit)]
    assert len(found) == len(set(found)) == 12


@pytest.mark.parametrize("place", [[1], ["a", 1, 2], [-1, 1, 1]])
def test_foreign_cursor_is_refused(posted: Books, alice: Passport, place: list[Any]) -> None:
    with pytest.raises(InvalidCursor):
        posted.run(
            lambda session: queries.list_archived_entries(
                session, alice, month=THIS_MONTH, limit=5, cursor=encode_cursor(place)
            )
        )


def test_month_that_is_not_over_stays(posted: Books) -> None:
    with pytest.raises(MonthNotOver):
        posted.run(
            lambda session: archives.archive_entries(
                session, month=THIS_MONTH, reason="x", actor_id="a", actor_name="a"
            )
        )


@pytest.mark.parametrize(("minute", "error"), [(4, MonthNotOver), (6, MonthEmpty)])
def test_month_leaves_when_what_was_posted_in_its_last_instant_is_seen(
    books: Books, monkeypatch: pytest.MonkeyPatch, minute: int, error: type[Exception]
) -> None:
    monkeypatch.setattr(archives, "utc_now", lambda: datetime(2026, 2, 1, 0, minute, tzinfo=UTC))
    with pytest.raises(error):
        books.run(
            lambda session: archives.archive_entries(
                session, month=date(2026, 1, 1), reason="x", actor_id="a", actor_name="a"
            )
        )


def test_months_leave_in_their_order(posted: Books) -> None:
    earlier = date(THIS_MONTH.year - 1, 1, 1)
    with pytest.raises(MonthEmpty):
        archive(posted, earlier)
    posted.run(lambda session: session.execute(sa.text(_INTO_PAST)))
    with pytest.raises(MonthNotNext) as refused:
        archive(posted)
    assert refused.value.extra["month"] == "2020-03"


# As a superuser: what was posted long ago. Its digests do not fit any more, which archiving must see.
_INTO_PAST = "update entries set created_at = '2020-03-05T00:00:00Z' where version = 1 and holder_id = 'user-1'"


def test_entries_that_do_not_prove_stay_in_the_log(posted: Books) -> None:
    posted.run(lambda session: session.execute(sa.text(_INTO_PAST)))
    with pytest.raises(LogNotProved):
        archive(posted, date(2020, 3, 1))
    with posted.engine.connect() as connection:
        assert connection.execute(sa.text("select count(*) from entries")).scalar_one() == 12
        assert connection.execute(sa.text("select count(*) from archive_parts")).scalar_one() == 0


def test_gap_in_an_account_keeps_its_month_in_the_log(posted: Books) -> None:
    posted.run(
        lambda session: session.execute(sa.text("delete from entries where version = 2 and holder_id = 'user-2'"))
    )
    with pytest.raises(LogNotProved):
        archive(posted)


def test_partition_is_not_dropped_for_an_archive_that_lacks_an_entry(posted: Books) -> None:
    with posted.engine.begin() as connection:
        connection.execute(
            sa.text(
                "insert into archives (id, number, month, entries, accounts, parts, size_bytes, digest, reason,"
                " actor_id, actor_name) values ('arc_x', 1, :month, 11, 3, 0, 0, '', 'x', 'a', 'a')"
            ),
            {"month": THIS_MONTH},
        )
    with posted.engine.connect() as connection, pytest.raises(sa.exc.DBAPIError, match="does not hold"):
        connection.execute(sa.text("select drop_archived_partition('arc_x')"))
    with posted.engine.connect() as connection:
        assert connection.execute(sa.text("select count(*) from entries")).scalar_one() == 12


def test_two_sessions_archive_a_month_once(posted: Books) -> None:
    def attempt() -> str:
        try:
            return archive(posted)["archive_id"]
        except (ArchivingRunning, MonthEmpty) as refusal:
            return refusal.code

    with ThreadPoolExecutor(4) as pool:
        outcomes = [f.result() for f in [pool.submit(copy_context().run, attempt) for _ in range(4)]]
    assert sum(outcome.startswith("arc_") for outcome in outcomes) == 1
    assert verify(posted) == []


def test_month_that_somebody_reads_leaves_another_time(posted: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LOCK_SECONDS_MAX", 1)
    with posted.engine.connect() as reader:
        reader.execute(sa.text("select count(*) from entries"))
        with pytest.raises(ArchivingRunning):
            archive(posted)
    assert archive(posted)["entries"] == 12


def test_refunds_that_left_still_count(books: Books) -> None:
    def trade(session: Session) -> str:
        post_all(session, single(change(user_id="user-1", amount="10.00")))
        order_no: str = create(session, kind="payment", amount="10.00", user_id="user-1")["order_no"]
        settle(session, order_no)
        refund(session, order_no, "4.00")
        return order_no

    order_no = books.run(trade)
    archive(books)
    books.run(create_partitions)
    with pytest.raises(RefundTooLarge):
        books.run(lambda session: refund(session, order_no, "6.01"))
    assert books.run(lambda session: refund(session, order_no))["status"] == "refunded"
    assert verify(books) == []


def test_archiving_is_told(posted: Books) -> None:
    view = archive(posted)
    with posted.engine.connect() as connection:
        told = connection.execute(
            sa.text("select envelope::jsonb from outbox where routing_key = 'ledger.EntriesArchived'")
        ).scalar_one()
    assert told["payload"]["archive_id"] == view["archive_id"]
    assert told["payload"]["entries"] == 12


def test_due_month_is_the_oldest_one_that_the_log_keeps_no_longer(posted: Books) -> None:
    def due(months: int) -> date | None:
        return posted.run(lambda session: archives.due_month(session, retention_months=months))  # type: ignore[no-any-return]

    assert [due(0), due(1)] == [None, None]
    posted.run(lambda session: session.execute(sa.text(_INTO_PAST)))
    assert [due(0), due(1), due(240)] == [None, date(2020, 3, 1), None]


@pytest.mark.parametrize(
    ("month", "today", "months", "is_expected"),
    [
        (date(2026, 1, 1), date(2026, 2, 28), 1, False),
        (date(2026, 1, 1), date(2026, 3, 1), 1, True),
        (date(2025, 12, 1), date(2026, 1, 31), 1, False),
        (date(2025, 11, 1), date(2026, 1, 1), 1, True),
        (date(2020, 1, 1), date(2026, 1, 1), 0, False),
        (date(2024, 1, 1), date(2026, 1, 31), 24, False),
        (date(2024, 1, 1), date(2026, 2, 1), 24, True),
    ],
)
def test_month_is_due_when_it_ended_longer_ago_than_the_log_keeps(
    month: date, today: date, months: int, *, is_expected: bool
) -> None:
    assert is_due(month, today, retention_months=months) is is_expected


@given(st.dates(date(2000, 1, 1), date(2100, 1, 1)))
def test_month_is_over_from_the_next_months_first_day(day: date) -> None:
    first = day.replace(day=1)
    assert not is_over(first, day)
    assert is_over(first, date(first.year + first.month // 12, first.month % 12 + 1, 1))


@pytest.mark.parametrize("text", ["", "2026", "2026-13", "2026-1", "2026-01-01", None, 202601])
def test_what_is_no_month_is_refused(text: Any) -> None:
    with pytest.raises(InvalidRequest):
        archives.check_month(text)


def test_unknown_archive_is_not_found(posted: Books, alice: Passport) -> None:
    with pytest.raises(ArchiveNotFound):
        proof(posted, alice, "arc_none")


def test_app_role_cannot_touch_an_archive(server_url: str, make_database: Callable[[str], str]) -> None:
    with sa.create_engine(make_database("ledger"), poolclass=sa.NullPool).connect() as connection:
        granted = connection.execute(
            sa.text(
                "select table_name || ' ' || privilege_type from information_schema.role_table_grants"
                " where table_name in ('archives', 'archive_parts', 'archive_totals')"
                " and privilege_type in ('UPDATE', 'DELETE', 'TRUNCATE') and grantee <> (select tableowner from"
                " pg_tables where tablename = 'archives')"
            )
        ).scalars()
        assert list(granted) == []


def _everything() -> Any:
    return log_filter(
        zone_name="UTC",
        date_text=None,
        from_time=FIRST_TIME,
        to_time=None,
        types=[],
        groups=[],
        user_id=None,
        holder_type=None,
        order_no=None,
        merchant_id=None,
        currency=None,
        min_amount=None,
        max_amount=None,
    )


def _read_back(books: Books, passport: Passport, *, limit: int = 5, **filters: str) -> list[Any]:
    found, cursor = [], None
    while True:
        page = books.run(
            lambda session, at=cursor: queries.list_archived_entries(
                session, passport, month=THIS_MONTH, limit=limit, cursor=at, **filters
            )
        )
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def test_log_says_which_of_its_range_has_left(posted: Books, alice: Passport) -> None:
    def page(**filters: Any) -> Any:
        wanted = replace(_everything(), **filters)
        return posted.run(lambda session: entry_queries.list_balance_logs(session, alice, wanted, limit=5, cursor=None))

    assert page()["archived_before"] is None
    archive(posted)
    assert page() == {"items": [], "next_cursor": None, "archived_before": f"{NEXT_MONTH.isoformat()}T00:00:00Z"}
    assert page(start=datetime(NEXT_MONTH.year, NEXT_MONTH.month, 1, tzinfo=UTC))["archived_before"] is None


HOUR = timedelta(hours=1)


@pytest.mark.parametrize("minutes", [0, 15, 45])
def test_sums_of_what_has_left_are_what_they_were_to_the_quarter_of_an_hour(
    posted: Books, alice: Passport, minutes: int
) -> None:
    def sums(start: datetime, end: datetime, **filters: Any) -> Any:
        wanted = replace(_everything(), start=start, end=end, **filters)
        return posted.run(lambda session: entry_queries.summarize_balance_logs(session, alice, wanted))

    now = utc_now()
    first = now.replace(minute=minutes, second=0, microsecond=0)
    ranges = [(first - n * HOUR, first + m * HOUR) for n in range(3) for m in range(3) if n + m]
    ranges += [(now.replace(minute=now.minute // 15 * 15, second=0, microsecond=0), now + HOUR)]
    ranges = [(start, end.replace(minute=end.minute // 15 * 15, second=0, microsecond=0)) for start, end in ranges]
    before = [sums(start, end) for start, end in ranges]
    assert {len(view["totals"]) for view in before} == {0, 1} or before[-1]["totals"]
    archive(posted)
    assert [sums(start, end) for start, end in ranges] == before


@pytest.mark.parametrize("filters", [{"user_id": "user-1"}, {"order_no": "B1"}, {"min_amount": Decimal(1)}])
def test_sums_that_lack_what_has_left_say_so(posted: Books, alice: Passport, filters: dict[str, Any]) -> None:
    def sums(**filters: Any) -> Any:
        wanted = replace(_everything(), **filters)
        return posted.run(lambda session: entry_queries.summarize_balance_logs(session, alice, wanted))

    assert sums(**filters)["archived_before"] is None
    archive(posted)
    left = f"{NEXT_MONTH.isoformat()}T00:00:00Z"
    assert (sums()["archived_before"], sums(**filters)["archived_before"]) == (None, left)
    assert sums(start=_everything().start + timedelta(seconds=1))["archived_before"] == left
    earlier = sums(end=utc_now() - HOUR)
    assert (earlier["archived_before"], earlier["totals"]) == (left, [])


def test_month_that_leaves_while_the_proof_begins_is_no_fault(posted: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped, looking = Event(), Event()
    drop = archives._drop_archived

    def drop_and_wait(session: Session, archive_id: str) -> None:
        drop(session, archive_id)
        dropped.set()
        looking.wait(10)
        time.sleep(1)  # the proof waits for the lock by now

    monkeypatch.setattr(archives, "_drop_archived", drop_and_wait)
    with ThreadPoolExecutor(2) as pool:
        leaving = pool.submit(copy_context().run, archive, posted)
        assert dropped.wait(10)
        proving = [pool.submit(copy_context().run, verify, posted, "full")]
        looking.set()
        assert leaving.result()["entries"] == 12
        assert [proof.result() for proof in proving] == [[]]


# Another process, so that it can be killed: it says where it is, and waits there.
_ARCHIVING = """
import sys, time
from datetime import date
import sqlalchemy as sa
from services.ledger.usecases import archives
from sqlalchemy.orm import Session

def wait(*arguments, **named):
    print("here", flush=True)
    time.sleep(60)

archives.PART_ENTRIES = 4
point, url, month, today = sys.argv[1:]
if point == "part":
    write, count = archives._write_openings, iter(range(9))
    archives._write_openings = lambda *a: (write(*a), next(count) == 1 and wait())
elif point == "row":
    archives._drop_archived = wait
else:
    drop = archives._drop_archived
    archives._drop_archived = lambda *a: (drop(*a), wait())
with Session(sa.create_engine(url)) as session:
    archives.archive_entries(session, month=date.fromisoformat(month), reason="x", actor_id="a", actor_name="a",
                             today=date.fromisoformat(today))
"""


@pytest.mark.parametrize("point", ["part", "row", "drop"])
def test_archiving_that_is_killed_leaves_all_as_it_was(posted: Books, point: str) -> None:
    url = posted.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", _ARCHIVING, point, url, THIS_MONTH.isoformat(), NEXT_MONTH.isoformat()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.kill()
    with posted.engine.connect() as connection:
        for table in ("archives", "archive_parts", "archive_totals", "archived_openings", "archived_refunds"):
            assert connection.execute(sa.text(f"select count(*) from {table}")).scalar_one() == 0
        assert connection.execute(sa.text("select count(*) from entries")).scalar_one() == 12
    for _ in range(50):  # until PostgreSQL has noticed
        try:
            view = archive(posted)
            break
        except ArchivingRunning:
            time.sleep(0.1)
    assert (view["entries"], verify(posted)) == (12, [])


def test_proof_that_is_killed_is_begun_anew_and_finds_the_same(posted: Books) -> None:
    assert verify(posted) == []
    posted.run(lambda session: post_all(session, single(change(user_id="user-1"))))
    with Session(posted.engine) as session:
        verify_ledger(session, mode="incremental")
        session.connection().connection.close()  # and with it what it remembered
    view = posted.run(lambda session: verify_ledger(session, mode="incremental"))
    assert (view["ok"], view["accounts"], view["entries"]) == (True, 1, 1)


def test_ledger_of_the_version_before_proves_after_its_migration(posted: Books) -> None:
    """What 0017 added is taken away, and comes again."""

    def trade(session: Session) -> None:
        for kind in ("payment", "purchase"):
            order_no = create(session, kind=kind, amount="1.00", user_id="user-1")["order_no"]
            settle(session, order_no)
            refund(session, order_no, "0.40")

    posted.run(trade)
    archive(posted)
    posted.run(create_partitions)
    posted.run(trade)
    posted.run(fold_deltas)
    with posted.engine.begin() as connection:
        connection.execute(sa.text(_BEFORE_0017))
        with Operations.context(MigrationContext.configure(connection)):
            import_module("services.ledger.migrations.0017_prove_every_row").upgrade()
    assert (verify(posted), verify(posted, "incremental")) == ([], [])


_BEFORE_0017 = """
alter table verified_accounts drop column holder;
alter table archived_openings drop column holder;
drop index ix_archive_totals_quarter;
alter table archive_totals drop constraint uq_archive_totals;
create temporary table summed on commit drop as
    select archive_id, date_trunc('hour', quarter, 'UTC') as quarter, merchant_id, currency, type, counter_account,
           sum(entries)::bigint as entries, sum(increase) as increase, sum(decrease) as decrease
      from archive_totals group by 1, 2, 3, 4, 5, 6;
alter table archive_totals drop column channel;
delete from archive_totals;
insert into archive_totals (archive_id, quarter, merchant_id, currency, type, counter_account, entries, increase,
    decrease) select * from summed;
set constraints all immediate;
alter table archive_totals rename column quarter to hour;
alter table archive_totals add constraint uq_archive_totals unique nulls not distinct
    (archive_id, hour, merchant_id, currency, type, counter_account);
create temporary table hours on commit drop as
    select hour, merchant_id, currency, type, '' as channel, sum(entries)::bigint as entries,
           sum(increase) as increase, sum(decrease) as decrease
      from hourly_totals group by 1, 2, 3, 4;
delete from hourly_totals;
insert into hourly_totals (hour, merchant_id, currency, type, channel, entries, increase, decrease)
    select * from hours;
alter table order_history drop column order_digest, drop column digest;
alter table card_transfers drop column digest;
alter table correction_entries drop column digest;
alter table archives drop column row_digest;
drop table chain_ends;
"""
