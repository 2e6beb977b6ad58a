"""The SQL of reconciliation finds what a plain matcher finds, over random small worlds, zones and midnights."""

import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.times import day_bounds
from tests.services.ledger.worlds import CHANNEL, add_channel, add_order, add_record, mismatches, open_ones, reconcile

WORLDS_EACH = 50
# Days without and with a change of the clocks: of 23, 25, 23.5 hours, and zones that are off by quarters of an hour.
DAYS = [
    ("UTC", date(2026, 11, 20)),
    ("Asia/Shanghai", date(2026, 11, 20)),
    ("America/New_York", date(2026, 3, 8)),
    ("America/New_York", date(2026, 11, 1)),
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
        there = set(session.execute(sa.text("select channel, upstream_ref from upstream_records")).all())
        for record in self.records:
            if (record["channel"], record["upstream_ref"]) in there:
                session.execute(_CHANGE, record)
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
                    since = datetime.min.replace(tzinfo=UTC)
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
