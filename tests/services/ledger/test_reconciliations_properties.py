"""The SQL of reconciliation finds what a plain matcher finds, over random small worlds, zones and midnights."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.contracts.reconciliations import ReconciliationRunning
from shared.rpc.wire import Call, current_call
from shared.times import day_bounds
from tests.services.ledger.conftest import Books
from tests.services.ledger.orders import in_calls
from tests.services.ledger.worlds import (
    ALICE,
    CHANNEL,
    add_channel,
    add_order,
    add_record,
    mismatches,
    open_ones,
    reconcile,
)

WORLDS_EACH = 50
# Days without and with a change of the clocks: of 23, 25, 23.5 hours, and zones that are off by quarters of an hour.
DAYS = [
    ("UTC", date(2026, 11, 20)),
    ("Asia/Shanghai", date(2026, 11, 20)),
    ("America/New_York", date(2026, 3, 8)),
    ("America/New_York", date(2026, 11, 1)),
    ("Europe/Berlin", date(2026, 10, 25)),
    ("Australia/Lord_Howe", date(2026, 10, 4)),
    ("Asia/Kathmandu", date(2026, 11, 20)),
]
PAID = ("success", "refunded")
AS_UPSTREAM = {"settled": "success", "partially_refunded": "success"}
_CHANGE = sa.text(
    """
    update upstream_records
       set order_no = :order_no, status = :status, occurred_at = :at, amount = :amount, currency = :currency,
           voided_by = :voided_by
     where channel = :channel and upstream_ref = :upstream_ref
    """
)
Subject = tuple[str, str | None, str | None]


class World:
    """Orders and records around the two ends of a day, and what a plain matcher says of them."""

    def __init__(self, rng: random.Random, day: date, zone_name: str) -> None:
        self.rng, self.day, self.zone_name = rng, day, zone_name
        self.start, self.end = day_bounds(day, zone_name)
        self.orders = [self._order(n) for n in range(rng.randint(0, 6))]
        self.records = [self._record(n) for n in range(rng.randint(0, 12))]

    def _instant(self) -> datetime:
        noon = self.start + (self.end - self.start) / 2
        edge = self.rng.choice([self.start, self.end, noon, noon])
        off = self.rng.choice([-3600_000_000, -1, 0, 1, 3600_000_000, self.rng.randint(-(10**10), 10**10)])
        return edge + timedelta(microseconds=off)

    def _order(self, n: int) -> dict[str, Any]:
        status = self.rng.choice(
            [
                "pending",
                "pending",
                "pending",
                "failed",
                "settled",
                "settled",
                "settled",
                "partially_refunded",
                "refunded",
            ]
        )
        amount = self.rng.choice([1000, 1000, 1200])
        return {
            "order_no": f"O{n}",
            "status": status,
            "at": None if status in ("pending", "failed") else self._instant(),
            "amount": amount,
            "refunded": {"partially_refunded": 1, "refunded": amount}.get(status, 0),
            "kind": "payment",
            "currency": self.rng.choice(["CNY", "CNY", "CNY", "USD"]),
            "channel": self.rng.choice([CHANNEL, CHANNEL, CHANNEL, "wechat", None]),
        }

    def _record(self, n: int) -> dict[str, Any]:
        return {
            "id": n,
            "upstream_ref": f"U{n}",
            "order_no": self.rng.choice([None, *(f"O{m}" for m in range(6))]),
            "status": self.rng.choice(["success", "success", "success", "pending", "failed", "refunded"]),
            "at": self._instant(),
            "amount": self.rng.choice([1000, 1000, 1200]),
            "currency": self.rng.choice(["CNY", "CNY", "CNY", "USD"]),
            "channel": self.rng.choice([CHANNEL, CHANNEL, CHANNEL, "wechat"]),
            "voided_by": self.rng.choice([None, None, None, None, None, "cor_1"]),
        }

    def write(self, session: Session) -> None:
        """Write the world where there is none."""
        add_channel(session)
        add_channel(session, "wechat")
        for order in self.orders:
            add_order(session, **order)
        for record in self.records:
            add_record(session, **{name: value for name, value in record.items() if name != "id"})

    def replace(self, session: Session) -> None:
        """Write the world where another is: what the platform says of a record changes, and the record stays."""
        session.execute(sa.text("delete from orders"))
        for order in self.orders:
            add_order(session, **order)
        there = {
            (row.channel, row.upstream_ref): (row.voided_by, row.status, row.amount, row.currency)
            for row in session.execute(sa.text("select * from upstream_records"))
        }
        for record in self.records:
            before = there.get((record["channel"], record["upstream_ref"]))
            if before is not None:
                session.execute(_CHANGE, record)
                content = (record["status"], record["amount"], record["currency"])
                if record["voided_by"] is not None and before[0] == record["voided_by"] and before[1:] != content:
                    record["voided_by"] = None  # what was set aside counts again when it says something else
            else:
                add_record(session, **{name: value for name, value in record.items() if name != "id"})
        refs = [record["channel"] + record["upstream_ref"] for record in self.records]
        session.execute(
            sa.text("delete from upstream_records where channel || upstream_ref <> all(:refs)"), {"refs": refs}
        )
        ids = dict(session.execute(sa.text("select channel || upstream_ref, id from upstream_records")).all())
        for record in self.records:
            record["id"] = ids[record["channel"] + record["upstream_ref"]]

    def unfit(self, start: datetime, end: datetime) -> dict[Subject, datetime]:
        """Return what does not fit of a day, with the instant from which its grace counts."""
        orders = {order["order_no"]: order for order in self.orders if order["channel"] == CHANNEL}
        records = [r for r in self.records if r["channel"] == CHANNEL and r["voided_by"] is None]
        found: dict[Subject, datetime] = {}
        for record in records:
            if start <= record["at"] < end and (kind := self._kind(record, records, orders)):
                order = orders.get(record["order_no"] or "")
                since = max(record["at"], order["at"]) if order and order["at"] else record["at"]
                if kind in ("duplicate_upstream", "amount_mismatch"):
                    since = datetime(2, 1, 1, tzinfo=UTC)
                found[kind, record["order_no"], record["upstream_ref"]] = since
        named = {record["order_no"] for record in records}
        for order in orders.values():
            if order["at"] and start <= order["at"] < end and order["order_no"] not in named:
                found["missing_upstream", order["order_no"], None] = order["at"]
        return found

    def _kind(self, record: Any, records: list[Any], orders: dict[str, Any]) -> str | None:
        same = [r for r in records if r["order_no"] == record["order_no"] is not None]
        paid = sorted((r for r in same if r["status"] in PAID), key=lambda r: (r["at"], r["id"]))
        if record in paid and record is not paid[0]:
            return "duplicate_upstream"
        order = orders.get(record["order_no"] or "")
        if order is None:
            return "missing_local"
        speaker = paid[0] if paid else max(same, key=lambda r: (r["at"], r["id"]))
        if record is not speaker:
            return None
        if record["status"] == "success" and order["status"] == "pending":
            return "missing_local_update"
        if record["status"] != AS_UPSTREAM.get(order["status"], order["status"]):
            return "status_mismatch"
        if record["status"] in PAID and (record["amount"], record["currency"]) != (order["amount"], order["currency"]):
            return "amount_mismatch"
        return None


@pytest.mark.parametrize(("zone_name", "day"), DAYS)
def test_every_kind_is_found_as_a_plain_matcher_finds_it(
    session_of: Callable[[str], Session], zone_name: str, day: date
) -> None:
    session = session_of("ledger")
    kinds: set[str] = set()
    for seed in range(WORLDS_EACH):
        world = World(random.Random(f"{zone_name} {day} {seed}"), day, zone_name)
        judged_at = world.rng.choice([world.start, world.end, *[world.end + timedelta(days=9)] * 3])
        terms = {"zone_name": zone_name, "grace_seconds": 3600, "judged_at": judged_at}
        savepoint = session.begin_nested()
        world.write(session)
        unfit = world.unfit(world.start, world.end)
        due = {subject for subject, since in unfit.items() if since <= judged_at - timedelta(hours=1)}
        first, second = (reconcile(session, day, **terms) for _ in range(2))
        assert open_ones(session) == due, seed
        of_records = sum(upstream_ref is not None for _, _, upstream_ref in unfit)
        records = [r for r in world.records if r["channel"] == CHANNEL and r["voided_by"] is None]
        paid = [o for o in world.orders if o["channel"] == CHANNEL and o["at"] is not None]
        day_records, day_orders = (sum(world.start <= one["at"] < world.end for one in of) for of in (records, paid))
        for run in (first, second):
            counts = (run["records"], run["orders"], run["matched"], run["expected"], run["found"], run["healed"])
            assert counts == (day_records, day_orders, day_records - of_records, len(unfit) - len(due), len(due), 0)
        kinds |= {kind for kind, _, _ in due}
        savepoint.rollback()
    assert len(kinds) == 6


@pytest.mark.parametrize("seed", range(25))
def test_a_changed_world_heals_and_opens_to_what_a_fresh_one_shows(
    session_of: Callable[[str], Session], seed: int
) -> None:
    session, rng, day = session_of("ledger"), random.Random(seed), date(2026, 11, 20)
    days = [day + timedelta(days=off) for off in (-1, 0, 1)]
    World(rng, day, "UTC").write(session)
    for each in rng.sample(days, 3):
        reconcile(session, each)
    after = World(rng, day, "UTC")
    after.replace(session)
    runs = [reconcile(session, each) for each in rng.sample(days, 3)]
    expected = {subject for each in days for subject in after.unfit(*day_bounds(each, "UTC"))}
    assert open_ones(session) == expected
    healed = {subject for subject, row in mismatches(session).items() if row.resolution == "healed"}
    assert mismatches(session).keys() == healed | expected
    assert sum(run["healed"] for run in runs) >= len(healed)
    again = [reconcile(session, each) for each in rng.sample(days, 3)]
    assert (open_ones(session), sum(run["healed"] for run in again)) == (expected, 0)


class Watched:
    """What runs and people make of a changing world, told from the documentation: one plain set of rows."""

    def __init__(self, session: Session, rng: random.Random, day: date, zone_name: str) -> None:
        self.session, self.rng, self.zone_name, self.day = session, rng, zone_name, day
        self.days = [day + timedelta(days=off) for off in (-1, 0, 1)]
        self.world = World(rng, day, zone_name)
        self.world.write(session)
        self.rows: dict[Subject, dict[str, Any]] = {}

    def change(self) -> None:
        """Have other orders, and other words of the platform, some of them of what was there."""
        before = {record["upstream_ref"]: record for record in self.world.records}
        orders = {order["order_no"]: order for order in self.world.orders}
        self.world = World(self.rng, self.day, self.zone_name)
        self.world.orders = [self._one_of(order, orders.get(order["order_no"])) for order in self.world.orders]
        self.world.records = [self._one_of(record, before.get(record["upstream_ref"])) for record in self.world.records]
        there = {record["upstream_ref"] for record in self.world.records}
        self.world.records += [record for ref, record in before.items() if ref not in there]  # none ever goes
        self.world.replace(self.session)

    def _one_of(self, new: Any, old: Any) -> Any:
        if old is None:
            return new
        return old if self.rng.random() < 0.6 else new | {"channel": old["channel"]}

    def close_one(self) -> None:
        """Close an open mismatch as a person does."""
        wanted = sorted((subject for subject, row in self.rows.items() if row["status"] == "open"), key=str)
        if wanted:
            subject = self.rng.choice(wanted)
            self.rows[subject] |= {"status": "ignored", "resolution": "ignored"}
            closing = sa.text("update mismatches set status = 'ignored', resolution = 'ignored' where id = :id")
            self.session.execute(closing, {"id": mismatches(self.session)[subject].id})

    def run(self) -> None:
        """Reconcile one of the days, at some instant, and say beforehand what comes of it."""
        day = self.rng.choice(self.days)
        _, end = day_bounds(day, self.zone_name)
        judged_at = end + self.rng.choice([timedelta(0), timedelta(minutes=30), timedelta(hours=1), timedelta(days=9)])
        expected, found, healed = self._judge(day, judged_at)
        terms = {"zone_name": self.zone_name, "grace_seconds": 3600, "judged_at": judged_at}
        run = reconcile(self.session, day, **terms)
        assert (run["expected"], run["found"], run["healed"]) == (expected, found, healed)
        there = {
            subject: {"status": row.status, "resolution": row.resolution, "day": row.day}
            for subject, row in mismatches(self.session).items()
        }
        assert there == {
            subject: {name: row[name] for name in ("status", "resolution", "day")} for subject, row in self.rows.items()
        }
        last_acts = (
            "select distinct on (mismatch_id) mismatch_id, status_after from mismatch_history order by 1, id desc"
        )
        noted = dict(self.session.execute(sa.text(last_acts)).all())
        assert all(noted[row.id] == row.status for row in mismatches(self.session).values() if row.status != "ignored")

    def _judge(self, day: date, judged_at: datetime) -> tuple[int, int, int]:
        of_day = self.world.unfit(*day_bounds(day, self.zone_name))
        ever = self.world.unfit(datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))
        open_ones = {s for s, row in self.rows.items() if row["status"] == "open" and row["day"] == day}
        refs = {ref for _, _, ref in open_ones if ref is not None}
        alone = {order_no for kind, order_no, _ in open_ones if kind == "missing_upstream"}
        unfit = of_day | {
            subject: since
            for subject, since in ever.items()
            if subject[2] in refs or (subject[0] == "missing_upstream" and subject[1] in alone)
        }
        found = {s for s, since in unfit.items() if s in open_ones or since + timedelta(hours=1) <= judged_at}
        for subject in found:
            sides, row = self._sides(subject), self.rows.get(subject)
            if row is not None and row["status"] == "ignored" and row["sides"] == sides:
                row["day"] = day
            else:
                self.rows[subject] = {"status": "open", "resolution": None, "day": day, "sides": sides}
        healed = open_ones - unfit.keys()
        for subject in healed:
            self.rows[subject] |= {"status": "reconciled", "resolution": "healed"}
        return len(unfit) - len(found), len(found), len(healed)

    def _sides(self, subject: Subject) -> Any:
        _, order_no, ref = subject
        orders = [o for o in self.world.orders if o["order_no"] == order_no and o["channel"] == CHANNEL]
        records = [r for r in self.world.records if r["upstream_ref"] == ref and r["channel"] == CHANNEL]
        return [[(one["status"], one["amount"], one["currency"]) for one in side] for side in (orders, records)]


@pytest.mark.parametrize(("zone_name", "day"), DAYS)
@pytest.mark.parametrize("seed", range(6))
def test_whatever_changes_between_runs_each_mismatch_is_as_the_documentation_has_it(
    session_of: Callable[[str], Session], zone_name: str, day: date, seed: int
) -> None:
    watched = Watched(session_of("ledger"), random.Random(f"{zone_name} {day} {seed}"), day, zone_name)
    for _ in range(12):
        watched.run()
        for _ in range(watched.rng.randint(0, 2)):
            watched.rng.choice([watched.change, watched.close_one])()


def test_neighbouring_days_at_once_come_to_what_one_after_the_other_comes_to(books: Books) -> None:
    rng, day = random.Random(5), date(2026, 11, 20)
    days = [day + timedelta(days=off) for off in (-1, 0, 1)]
    current_call.set(Call(service="tests", method="run_test", passport=ALICE, arguments={}))
    go = in_calls(books, reconcile)
    for turn in range(5):
        world = World(rng, day, "UTC")
        books.run(world.replace if turn else world.write)
        with ThreadPoolExecutor(9) as pool:
            outcomes = list(pool.map(go, days * 4))
        assert {type(outcome) for outcome in outcomes} <= {dict, ReconciliationRunning}
        for each in days:  # a run that waited for nobody may have seen the days beside it before they were done
            go(each)
        expected = {subject for each in days for subject in world.unfit(*day_bounds(each, "UTC"))}
        assert books.run(open_ones) == expected
        assert books.run(_acts_in_a_row) == []


def _acts_in_a_row(session: Session) -> list[Any]:
    """Return what was found twice, or healed twice, with nothing in between."""
    acts = "select act, lag(act) over (partition by mismatch_id order by id) as act_before from mismatch_history"
    return list(session.execute(sa.text(f"select * from ({acts}) as acts where act = act_before")))
