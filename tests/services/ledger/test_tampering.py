"""Whatever a superuser's SQL does to a row that proves money, the proof names it; what it does not name stands here.

The acts are made from the columns that the tables have: a new column is tampered with too, or is excused in words.
Each is done in a transaction that is rolled back, with every constraint off, in books that have all there is: entries
in the log and in archives, orders of each kind and state, card transfers, corrections, closed days, unfolded sums.
"""

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any, Final

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.sums import create_partitions, fold_deltas
from services.ledger.usecases import archives
from services.ledger.usecases.card_transfers import transfer_card_money
from services.ledger.usecases.closed_days import close_day
from services.ledger.verification import Mode, prove, verify_ledger
from shared.contracts.ledger import LedgerFault
from shared.errors import ServiceError
from shared.rpc.wire import current_call
from shared.times import utc_now
from tests.conftest import AURORA, BOREALIS
from tests.services.ledger.conftest import THRESHOLD, Books, call_of, change, own_ledger, post_all, single
from tests.services.ledger.mismatches import (
    ALICE,
    ALWAYS_WAITS,
    add_world,
    approve,
    correct,
    found,
    paid,
    reconcile_all,
    record,
    reject,
    reverse,
)
from tests.services.ledger.orders import create, fail, fund, refund, settle
from tests.services.ledger.test_archives import NEXT_MONTH, THIS_MONTH

KINDS = ("recharge", "purchase", "renewal", "payment", "withdraw", "paid_reset")
ROWS_MAX: Final = 3  # of each table are changed, those at both ends among them

# What the proof does not look at, and why that cannot make money.
OF_NO_MONEY: Final = {
    "alembic_version": "which migrations ran",
    "idempotency_keys": "an answer for seven days; whatever it says, the entry's own rules stand",
    "inbox": "which events were taken; taking one again moves no money",
    "outbox": "what waits to be told; audit's chain has what was told",
    "parameter_copies": "a copy of the settings service's, which writes it anew",
    "merchant_copies": "a copy of the users service's, which writes it anew",
    "channels": "how a platform is asked; a callback with another secret is refused",
    "statements": "which file came when; its digest is in audit's chain, the file with who has it",
    "statement_chunks": "a file until it is imported",
    "reconciliations": "what a run counted; the next run counts anew",
    "mismatches": "what does not fit; the next run finds it anew",
    "mismatch_sightings": "which run saw what",
    "mismatch_history": "who did what about a mismatch: corrections are compared with it, and audit has each act",
    "callbacks": "what a platform said; each effect of it is an order's act",
    "upstream_answers": "what a platform said; each effect of it is an order's act",
    "proofs": "when the ledger was last proved: the whole proof comes at most a day later",
    "verified_accounts": "what the incremental proof remembers; the whole one does without, and writes it anew",
}
# Of these tables only some rows prove money. What a platform says of a payment is its own: reconciliation compares it
# with our orders and moves nothing, and whoever corrects our books by it reads both sides. A correction may have a
# record count for nothing, or speak in its place; that is proved. A delta or a total of nothing changes no sum.
ROWS: Final = {
    "upstream_records": "source = 'correction' and voided_by is null",
    "posting_deltas": "increase + decrease <> 0",
    "system_account_totals": "balance <> 0",
    "card_transfers": "refusal is null",  # one that is gone is decided anew, for both services alike
}
_UPSTREAM: Final = "what the platform says; its statement, with the digest that audit has, says it again"
OF_NO_MONEY_COLUMNS: Final = {
    ("accounts", "updated_at"): "when a balance last moved; its last entry says so too",
    ("posting_deltas", "id"): "in which order sums are folded",
    ("order_history", "id"): "in which order acts stand; another order is named",
    ("closed_days", "request_id"): "audit has the act",
    ("closed_days", "closed_at"): "audit has the act",
    ("corrections", "created_at"): "the mismatch's history says so too",
    ("corrections", "decided_at"): "the mismatch's history says so too",
    ("corrections", "applied_at"): "the mismatch's history says so too, and when its entries were posted is proved",
    **{("upstream_records", name): _UPSTREAM for name in ("id", "statement_id", "line", "counted_again_at")},
}

# What the incremental proof promises: balances, holders, what is held, the system accounts, and what came since.
INCREMENTAL: Final = {
    "accounts": ("id", "merchant_id", "holder_type", "holder_id", "currency", "wallet", "balance", "held", "version"),
    "orders": ("held", "account_id"),
    "system_account_totals": ("merchant_id", "currency", "balance"),
    "posting_deltas": ("merchant_id", "currency", "increase", "decrease"),
}


def live(session: Session, tag: str) -> None:
    """Post changes, move card money, and lead orders of each kind through all their states."""
    for user, merchant in (("user-1", AURORA), ("user-2", AURORA), ("user-9", BOREALIS)):
        fund(session, "500.00", user_id=user, merchant_id=merchant, note="hello", channel="alipay")
        post_all(session, single(change(type=326, amount="-1.00", user_id=user, merchant_id=merchant, reason="why")))
    fund(session, "90.00", user_id=None)
    fund(session, "70.00", currency="USD")
    for n, (direction, amount) in enumerate((("top_up", "30.00"), ("top_up", "7.00"), ("withdrawal", "5.00"))):
        moved = {"card_id": "car_1", "merchant_id": AURORA, "direction": direction, "amount": amount}
        transfer_card_money(session, ALICE, threshold=THRESHOLD, transfer_id=f"{tag}-{n}", currency="CNY", **moved)
    too_much = {"card_id": "car_1", "merchant_id": AURORA, "direction": "top_up", "amount": "9000.00"}
    transfer_card_money(session, ALICE, threshold=THRESHOLD, transfer_id=f"{tag}-no", currency="CNY", **too_much)
    for kind in KINDS:
        create(session, order_no=f"{tag}-{kind}-pending", kind=kind, amount="2.00")
        create(session, order_no=f"{tag}-{kind}-failed", kind=kind)
        fail(session, f"{tag}-{kind}-failed", reason="no")
        create(session, order_no=f"{tag}-{kind}-paid", kind=kind)
        settle(session, f"{tag}-{kind}-paid", upstream_ref=f"{tag}-{kind}")
    for kind in ("purchase", "payment", "payment", "renewal"):
        made = create(session, kind=kind)
        settle(session, made["order_no"])
        refund(session, made["order_no"], "3.00")
        refund(session, made["order_no"], None if kind == "renewal" else "2.50")


def correct_some(session: Session) -> None:
    """Find mismatches of each kind, and correct, reverse, propose, reject and leave some of them."""
    for kind in KINDS:
        record(session, paid(session, kind=kind)["order_no"], amount=700)
        record(session, create(session, kind=kind)["order_no"])
        paid(session, kind=kind)
    reconcile_all(session, days=1)
    terms = [None, ALWAYS_WAITS]
    for n, mismatch in enumerate(found(session, "open")):
        to = "local" if n % 4 == 3 else "upstream"
        savepoint = session.begin_nested()
        try:
            correct(session, mismatch["id"], to, **({"terms": terms[1]} if n % 5 in (1, 2, 4) else {}))
            if n % 5 == 1:
                approve(session, mismatch["id"])
            if n % 5 == 2:
                reject(session, mismatch["id"])
            if n % 5 == 0 and n:
                reverse(session, mismatch["id"])
            savepoint.commit()
        except ServiceError:
            savepoint.rollback()


@pytest.fixture(scope="module")
def tampered(server_url: str) -> Iterator[sa.Engine]:
    """Books with all there is, in which nothing keeps a superuser from writing what they like."""
    with own_ledger(server_url) as engine:
        token = current_call.set(call_of(ALICE))
        _write_books(Books(engine))
        current_call.reset(token)
        yield engine


def _write_books(books: Books) -> None:
    books.run(add_world)
    fee = "update channels set config = jsonb_build_object('fee_percent', '2.5')"
    books.run(lambda session: session.execute(sa.text(fee)))
    books.run(lambda session: fund(session, "1.00", user_id="gone", merchant_id=BOREALIS))
    books.run(lambda session: live(session, "a"))
    books.run(correct_some)
    books.run(fold_deltas)
    _archive(books)
    books.run(lambda session: live(session, "b"))
    _archive(books)
    books.run(create_partitions)
    books.run(lambda session: live(session, "c"))
    books.run(correct_some)
    books.run(fold_deltas)
    today = utc_now().date()
    for back in (4, 3, 2):
        how = {"day": today - timedelta(days=back), "reason": "over", "is_forced": True, "zone_name": "UTC"}
        books.run(lambda session, how=how: close_day(session, ALICE, **how))
    books.run(lambda session: verify_ledger(session, mode="full"))
    books.run(lambda session: live(session, "d"))
    books.run(lambda session: session.execute(sa.text(_NO_CONSTRAINTS)))


def _archive(books: Books) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archives, "PART_ENTRIES", 20)
        books.run(
            lambda session: archives.archive_entries(
                session, month=THIS_MONTH, reason="old", actor_id="usr", actor_name="Alice", today=NEXT_MONTH
            )
        )


_NO_CONSTRAINTS = """
do $$
declare
    one record;
begin
    for one in select conrelid::regclass as name, conname from pg_constraint
                where contype in ('c', 'f', 'u', 'p') and connamespace = 'public'::regnamespace and coninhcount = 0
                  and conrelid <> 'verified_accounts'::regclass
                order by contype = 'p', contype = 'u', conname
    loop
        execute format('alter table %s drop constraint %I cascade', one.name, one.conname);
    end loop;
    for one in select indexrelid::regclass as name from pg_index join pg_class on pg_class.oid = indexrelid
                where indisunique and relnamespace = 'public'::regnamespace and relname <> 'pk_verified_accounts'
    loop
        execute format('drop index %s', one.name);
    end loop;
    for one in select attrelid::regclass as name, attname from pg_attribute
                where attidentity <> '' and not attisdropped
    loop
        execute format('alter table %s alter column %I drop identity', one.name, one.attname);
    end loop;
    for one in select attrelid::regclass as name, attname from pg_attribute join pg_class on pg_class.oid = attrelid
                where attnum > 0 and attnotnull and not attisdropped and relkind in ('r', 'p')
                  and relnamespace = 'public'::regnamespace and not relispartition and relname <> 'verified_accounts'
    loop
        execute format('alter table %s alter column %I drop not null', one.name, one.attname);
    end loop;
end $$
"""
_TABLES = """
select relname from pg_class
 where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace and not relispartition order by relname
"""
_COLUMNS = """
select attname, format_type(atttypid, null) as type, attidentity <> '' as is_identity from pg_attribute
 where attrelid = cast(:table as regclass) and attnum > 0 and not attisdropped order by attnum
"""
_CHANGED = {
    "text": "coalesce({0}, '') || 'x'",
    "bytea": "sha256(coalesce({0}, '') || 'x')",
    "jsonb": "coalesce({0}, '[]') || '[[1]]'",
    "boolean": "not {0}",
    "date": "coalesce({0}, current_date) + 1",
    "timestamp with time zone": "coalesce({0}, now()) + interval '1 hour'",
}
_NUMBERS = ("bigint", "smallint", "integer", "numeric", "double precision")


def tables(session: Session) -> list[str]:
    """Return the tables that prove money."""
    return [name for name in session.scalars(sa.text(_TABLES)) if name not in OF_NO_MONEY]


def columns(session: Session, table: str) -> list[Any]:
    return list(session.execute(sa.text(_COLUMNS), {"table": table}))


def places(session: Session, table: str) -> list[tuple[str, str]]:
    """Return some rows of a table, by their partition and place in it."""
    query = f"select tableoid::regclass::text, ctid::text from {table} where {ROWS.get(table, 'true')} order by 1, ctid"
    rows = session.execute(sa.text(query)).all()
    step = max(len(rows) // ROWS_MAX, 1)
    return [(row[0], row[1]) for row in (rows[::step][: ROWS_MAX - 1] + rows[-1:])]


def faults_of(session: Session, statement: str, mode: Mode = "full") -> list[LedgerFault]:
    """Return what a proof finds when a statement was carried out; nothing is left of it."""
    savepoint = session.begin_nested()
    try:
        result = session.execute(sa.text(statement))
        assert result.rowcount > 0, statement
        return prove(session, mode=mode)["faults"]
    finally:
        savepoint.rollback()


def changing(table: str, place: tuple[str, str], column: Any) -> str:
    name = column.attname
    to = f"coalesce({name}, 0) + 1" if column.type in _NUMBERS else _CHANGED[column.type].format(name)
    return f"update {place[0]} set {name} = {to} where ctid = '{place[1]}'"


PROVED = (
    "accounts",
    "archive_parts",
    "archive_totals",
    "archived_openings",
    "archived_refunds",
    "archives",
    "card_transfers",
    "chain_ends",
    "closed_days",
    "correction_entries",
    "corrections",
    "entries",
    "hourly_totals",
    "order_history",
    "orders",
    "posting_deltas",
    "system_account_totals",
    "upstream_records",
)


def test_every_table_is_proved_or_excused(tampered: sa.Engine) -> None:
    with Session(tampered) as session:
        assert tables(session) == sorted(PROVED)
        assert set(OF_NO_MONEY) <= set(session.scalars(sa.text(_TABLES)))
        for table in PROVED:
            assert session.execute(sa.text(f"select count(*) from {table}")).scalar_one() >= 1, table


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_untouched_books_are_proved(tampered: sa.Engine, mode: Mode) -> None:
    with Session(tampered) as session:
        assert prove(session, mode=mode)["faults"] == []


# By what a row is found again: what is said of a fault has one of these.
NAMED_BY: Final = {
    "accounts": "id",
    "archive_parts": "archive_id",
    "archive_totals": "archive_id",
    "archived_openings": "account_id",
    "archived_refunds": "merchant_id",
    "archives": "id",
    "card_transfers": "card_id",
    "chain_ends": "place",
    "closed_days": "'Closed day'",
    "correction_entries": "correction_id",
    "corrections": "id",
    "entries": "account_id",
    "hourly_totals": "merchant_id",
    "order_history": "o.order_no",
    "orders": "order_no",
    "posting_deltas": "merchant_id",
    "system_account_totals": "merchant_id",
    "upstream_records": "upstream_ref",
}
assert tuple(NAMED_BY) == PROVED


def name_of(session: Session, table: str, place: tuple[str, str]) -> str:
    """Return by what a row is found again."""
    source = f"{place[0]} join orders o on o.id = order_id" if table == "order_history" else place[0]
    query = f"select {NAMED_BY[table]} from {source} where {place[0]}.ctid = '{place[1]}'"
    return str(session.execute(sa.text(query)).scalar_one())


def is_named(name: str, faults: list[LedgerFault]) -> bool:
    """Return whether a row is named by what was found."""
    return any(
        name in f["detail"] or name in (str(f["account_id"]), f["merchant_id"], (f["entry_id"] or "")) for f in faults
    )


@pytest.mark.parametrize("table", PROVED)
def test_changed_column_is_named(tampered: sa.Engine, table: str) -> None:
    with Session(tampered) as session:
        unnamed = [
            f"{column.attname} of {place}"
            for place in places(session, table)
            for name in [name_of(session, table, place)]
            for column in columns(session, table)
            if (table, column.attname) not in OF_NO_MONEY_COLUMNS
            and not is_named(name, faults_of(session, changing(table, place, column)))
        ]
    assert not unnamed, "\n".join(unnamed)


@pytest.mark.parametrize("table", PROVED)
def test_deleted_row_is_named(tampered: sa.Engine, table: str) -> None:
    with Session(tampered) as session:
        unnamed = [
            place
            for place in places(session, table)
            for name in [name_of(session, table, place) if table != "orders" else "which is gone"]
            if not is_named(name, faults_of(session, f"delete from {place[0]} where ctid = '{place[1]}'"))
        ]
    assert not unnamed, unnamed


# A row put in beside the one that it repeats, under a key of its own where there is one.
_KEYS: Final = {
    "accounts": {"id": "id + 900000", "holder_id": "holder_id || 'x'"},
    "archived_openings": {"account_id": "account_id + 900000"},
    "archives": {"id": "id || 'x'", "number": "number + 900"},
    "archive_parts": {"part": "part + 900"},
    "archive_totals": {},
    "archived_refunds": {"order_no": "order_no || 'x'"},
    "card_transfers": {"transfer_id": "transfer_id || 'x'"},
    "chain_ends": {},
    "closed_days": {"day": "day + 900"},
    "correction_entries": {"version": "version + 900000"},
    "corrections": {"id": "id || 'x'"},
    "entries": {"version": "version + 900000"},
    "hourly_totals": {"hour": "hour - interval '900 hours'"},
    "order_history": {"id": "id + 900000"},
    "orders": {"id": "id + 900000", "order_no": "order_no || 'x'"},
    "posting_deltas": {"id": "id + 900000"},
    "system_account_totals": {"counter_account": "counter_account || 'x'"},
    "upstream_records": {"id": "id + 900000", "upstream_ref": "upstream_ref || 'x'"},
}
# A second end of the chain of days is read by nobody: there is one for each chain, and this one is not known.
NOT_INSERTED: Final = frozenset({"chain_ends"})


@pytest.mark.parametrize("table", [table for table in PROVED if table not in NOT_INSERTED])
def test_inserted_row_is_named(tampered: sa.Engine, table: str) -> None:
    with Session(tampered) as session:
        names = [column.attname for column in columns(session, table)]
        values = ", ".join(_KEYS[table].get(name, name) for name in names)
        insert = f"insert into {table} ({', '.join(names)}) select {values} from {{}} where ctid = '{{}}'"
        unnamed = [
            place for place in places(session, table) if not faults_of(session, insert.format(place[0], place[1]))
        ]
    assert not unnamed, unnamed


# Their keys say nothing but which row is which: two that swap all else have swapped their keys.
NOT_SWAPPED: Final = frozenset({"chain_ends", "archive_totals", "order_history", "posting_deltas"})


@pytest.mark.parametrize("table", [table for table in PROVED if table not in NOT_SWAPPED])
def test_swapped_rows_are_named(tampered: sa.Engine, table: str) -> None:
    """Two rows keep their keys, and say of everything else what the other said."""
    with Session(tampered) as session:
        swapped = [c.attname for c in columns(session, table) if c.attname not in (*_KEYS[table], NAMED_BY[table])]
        swapped = [name for name in swapped if (table, name) not in OF_NO_MONEY_COLUMNS]
        unnamed = []
        some = places(session, table)
        for one, other in pairwise(some):
            kept = [
                *_KEYS[table],
                NAMED_BY[table],
            ]  # where these are alike, nothing but places is swapped
            if one[0] != other[0] or not all(_differ(session, one, other, names) for names in (swapped, kept)):
                continue
            sets = ", ".join(f"{name} = o.{name}" for name in swapped)
            statement = (
                f"update {one[0]} t set {sets} from {one[0]} o where (t.ctid, o.ctid) in"
                f" (('{one[1]}', '{other[1]}'), ('{other[1]}', '{one[1]}'))"
            )
            if not faults_of(session, statement):
                unnamed.append((one, other))
    assert not unnamed, unnamed


def _differ(session: Session, one: tuple[str, str], other: tuple[str, str], names: list[str]) -> bool:
    row = f"({', '.join(names)})"
    query = f"select count(distinct {row}) from {one[0]} where ctid in ('{one[1]}', '{other[1]}')"
    return bool(session.execute(sa.text(query)).scalar_one() == 2)


@pytest.mark.parametrize("table", INCREMENTAL)
def test_incremental_proof_names_what_it_promises(tampered: sa.Engine, table: str) -> None:
    with Session(tampered) as session:
        if table == "orders":
            query = "select tableoid::regclass::text, ctid::text from orders where held > 0 limit 2"
            some = [(row[0], row[1]) for row in session.execute(sa.text(query))]
        else:
            some = places(session, table)
        unnamed = [
            f"{column.attname} of {place}"
            for place in some
            for column in columns(session, table)
            if column.attname in INCREMENTAL[table]
            and not faults_of(session, changing(table, place, column), "incremental")
        ]
    assert not unnamed, "\n".join(unnamed)


def test_incremental_proof_names_any_change_of_what_came_since(tampered: sa.Engine) -> None:
    with Session(tampered) as session:
        query = """
            select e.tableoid::regclass::text, e.ctid::text
              from entries e join verified_accounts v on v.account_id = e.account_id
             where e.version > v.version order by e.created_at
        """
        some = [(row[0], row[1]) for row in session.execute(sa.text(query))]
        unnamed = [
            f"{column.attname} of {place}"
            for place in (some[0], some[-1])
            for column in columns(session, "entries")
            if not faults_of(session, changing("entries", place, column), "incremental")
        ]
        gone = faults_of(session, f"delete from {some[-1][0]} where ctid = '{some[-1][1]}'", "incremental")
    assert not unnamed, "\n".join(unnamed)
    assert gone


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_account_that_is_gone_with_all_its_money_is_missed(tampered: sa.Engine, mode: Mode) -> None:
    with Session(tampered) as session:
        assert faults_of(session, "delete from accounts where holder_id = 'gone'", mode)


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_account_whose_entries_all_left_stays_its_holders(tampered: sa.Engine, mode: Mode) -> None:
    with Session(tampered) as session:
        [fault] = faults_of(session, "update accounts set holder_id = 'mallory' where holder_id = 'gone'", mode)
    assert fault["detail"] == "The account is not its holder's any more."


def test_text_that_becomes_empty_is_named(tampered: sa.Engine) -> None:
    with Session(tampered) as session:
        [place, *_] = places(session, "entries")
        for name in ("note", "reason", "channel", "order_no"):
            statement = f"update {place[0]} set {name} = '' where ctid = '{place[1]}' or {name} is null"
            assert faults_of(session, statement), name


def test_flipped_bit_of_an_archive_is_named(tampered: sa.Engine) -> None:
    with Session(tampered) as session:
        for place in places(session, "archive_parts"):
            for at in (12, 40, 200):  # the first ten bytes are gzip's own, and say nothing of what is in it
                flip = f"set_byte(content, {at}, get_byte(content, {at}) # 4)"
                faults = faults_of(session, f"update archive_parts set content = {flip} where ctid = '{place[1]}'")
                assert is_named(name_of(session, "archive_parts", place), faults)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_cut_off_tail_of_closed_days_is_named(tampered: sa.Engine, count: int) -> None:
    tail = f"delete from closed_days where day in (select day from closed_days order by day desc limit {count})"
    with Session(tampered) as session:
        assert [f["kind"] for f in faults_of(session, tail)] == ["closed_day"]


def test_record_that_counts_for_nothing_by_no_correction_is_named(tampered: sa.Engine) -> None:
    with Session(tampered) as session:
        for statement in (
            "update upstream_records set voided_by = 'cor_none' where voided_by is null and source = 'statement'",
            "update upstream_records set voided_by = (select id from corrections where status = 'applied' limit 1)"
            " where voided_by is null and source = 'statement'",
            "update upstream_records set voided_by = null where voided_by is not null and source = 'statement'",
        ):
            assert {f["kind"] for f in faults_of(session, statement)} == {"correction"}
