"""The daily checks, the rows behind them and the figures are what a plain count of entries, orders and records says."""

import random
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger import sums
from services.ledger.domain.figures import BUCKETS
from services.ledger.queries.daily_checks import list_daily_check_rows, read_daily_checks
from services.ledger.queries.figures import read_monthly_figures
from services.ledger.usecases.closed_days import close_day
from shared.errors import ServiceError
from shared.money import fraction_digits
from shared.passport import Passport
from shared.times import day_bounds
from tests.conftest import AURORA, BOREALIS
from tests.services.ledger.conftest import THRESHOLD, change, post_all, result_of, single
from tests.services.ledger.mismatches import TERMS, correct, found, reverse
from tests.services.ledger.orders import add_merchants, create, fail, fund, refund, settle
from tests.services.ledger.past import turn_clock
from tests.services.ledger.worlds import ALICE, add_channel, add_record, reconcile

FIRST = date(2026, 10, 23)
DAYS = [FIRST + timedelta(days=off) for off in range(5)]
CURRENCIES = ("CNY", "JPY", "KWD")
CHANNELS = ("alipay", "wechat", None)
KINDS = ("recharge", "recharge", "payment", "purchase", "renewal", "withdraw", "paid_reset")
CONSUMING = ("payment", "purchase", "renewal", "paid_reset")
# Each figure with its sign and the buckets of which it is the sum.
SHOWN: dict[str, Any] = {
    "recharge": (1, "recharge"),
    "withdrawal": (-1, "withdrawal"),
    "consumption": (-1, "consumption", "resets"),
    "refund": (1, "refund"),
    "fees": (-1, "fees"),
    "balance_change": (1, "balance"),
}
Place = tuple[str, str | None]


def written(minor: int, currency: str) -> str:
    return f"{Decimal(minor).scaleb(-fraction_digits(currency)):f}"


class Lived:
    """Five days of orders of two merchants, lived through in time's order by a random choice of acts."""

    def __init__(self, session: Session, rng: random.Random, zone_name: str) -> None:
        self.session, self.rng, self.zone_name = session, rng, zone_name
        add_merchants(session)
        for code in ("alipay", "wechat"):
            add_channel(session, code)
        start, end = day_bounds(DAYS[0], zone_name)[0], day_bounds(DAYS[-1], zone_name)[1]
        turn_clock(session, start - timedelta(days=9))
        for merchant_id in (AURORA, BOREALIS):
            for currency in CURRENCIES:
                fund(session, "900", merchant_id=merchant_id, currency=currency, channel="alipay")
        self.orders: list[dict[str, Any]] = []
        span = int((end - start).total_seconds())
        for second in sorted(rng.randrange(span) for _ in range(60)):
            edge = rng.choice([None, None, *(day_bounds(day, zone_name)[0] for day in DAYS[1:])])
            self.now = max(getattr(self, "now", start), start + timedelta(seconds=second))
            if edge is not None and edge > self.now:
                self.now = edge - timedelta(milliseconds=rng.choice([-1, 20]))
            turn_clock(session, self.now)
            self._attempt(rng.choice([self.begin, self.begin, self.begin, self.refund, self.change, self.say]))
            if rng.random() < 0.1:
                sums.fold_deltas(session)

    def _attempt(self, act: Callable[[], Any]) -> None:
        savepoint = self.session.begin_nested()
        with suppress(ServiceError, IndexError):
            act()
            savepoint.commit()
            return
        savepoint.rollback()

    def begin(self) -> None:
        currency = self.rng.choice(CURRENCIES)
        minor = self.rng.randint(1, 900)
        made = create(
            self.session, kind=self.rng.choice(KINDS), amount=written(minor, currency), currency=currency,
            merchant_id=self.rng.choice([AURORA, BOREALIS]), channel=self.rng.choice(CHANNELS),
            default_fee_percent=self.rng.choice(["0", "1.5"]),
        )  # fmt: skip
        number = made["order_no"]
        self.orders.append(made | {"minor": minor})
        end = self.rng.choice(["settle"] * 6 + ["fail", "wait"])
        if end == "settle":
            settle(self.session, number)
        elif end == "fail":
            fail(self.session, number)
        if made["channel"] and self.rng.random() < 0.85:
            self._record(number, made["channel"], minor, currency)

    def _record(self, number: str | None, channel: str, minor: int, currency: str) -> None:
        add_record(
            self.session, f"u-{self.rng.getrandbits(60)}", number, channel=channel, currency=currency,
            amount=self.rng.choice([minor, minor, minor, minor + 1]),
            at=self.now + timedelta(minutes=self.rng.choice([0, 0, -90, 90])),
            status=self.rng.choice(["success"] * 6 + ["failed", "pending", "refunded"]),
        )  # fmt: skip

    def refund(self) -> None:
        order = self.rng.choice(self.orders)
        part = written(self.rng.randint(1, order["minor"]), order["currency"])
        refund(self.session, order["order_no"], self.rng.choice([None, part]))

    def change(self) -> None:
        currency, code = self.rng.choice(CURRENCIES), self.rng.choice([232, 232, 323, 324, 325, 321, 341])
        amount = written(self.rng.randint(1, 99), currency)
        made = change(
            type=code,
            amount=("-" if code in (232, 323) else "") + amount,
            currency=currency,
            reason="Asked for." if code == 341 else None,
            order_no=None if code in (232, 325, 341) else f"X{self.rng.getrandbits(60)}",
            channel=self.rng.choice(CHANNELS),
            merchant_id=self.rng.choice([AURORA, BOREALIS]),
        )
        result_of(post_all(self.session, single(made))[0])

    def say(self) -> None:
        number = self.rng.choice([None, f"nowhere-{self.rng.getrandbits(60)}"])
        self._record(number, self.rng.choice(["alipay", "wechat"]), 5, self.rng.choice(CURRENCIES))

    def correct_some(self) -> None:
        """Correct much of what does not fit, and take some of that back."""
        turn_clock(self.session, self.now + timedelta(days=self.rng.choice([0, 2, 12])))
        for day in DAYS:
            for code in ("alipay", "wechat"):
                reconcile(self.session, day, channel=code, zone_name=self.zone_name)
        terms = replace(TERMS, zone_name=self.zone_name)
        for mismatch in found(self.session, "open"):
            if self.rng.random() < 0.7:
                to = self.rng.choice(["upstream", "upstream", "local"])
                merchant_id, kind = self.rng.choice([AURORA, BOREALIS]), self.rng.choice(["recharge", "payment"])
                whose = {"merchant_id": merchant_id, "user_id": "user-1", "kind": kind}
                self._attempt(partial(correct, self.session, mismatch["id"], to, terms=terms, **whose))
        for mismatch in found(self.session, "corrected"):
            if self.rng.random() < 0.2:
                self._attempt(partial(reverse, self.session, mismatch["id"], terms=terms))


class Counted:
    """A day counted row by row, over some merchants: what the documentation says, and none of the ledger's SQL."""

    def __init__(self, session: Session, day: date, zone_name: str, merchants: frozenset[str] | None = None) -> None:
        self.day, (self.start, self.end), self.merchants = day, day_bounds(day, zone_name), merchants
        self.entries, self.orders, self.corrections, self.records = (
            session.execute(sa.text(f"select * from {table}")).all()
            for table in ("entries", "orders", "correction_entries", "upstream_records")
        )
        self.today = [row for row in self.entries if self.start <= row.created_at < self.end and self._is_mine(row)]
        self.figures = self._figures()

    def _is_mine(self, row: Any) -> bool:
        return self.merchants is None or (row is not None and row.merchant_id in self.merchants)

    def _figures(self) -> dict[Place, dict[str, int]]:
        figures: dict[Place, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        corrections = [row for row in self.corrections if self._is_mine(row)]
        of_corrections = {(row.account_id, row.version) for row in corrections}
        for row in self.today:
            own = figures[row.currency, row.channel]
            own["balance"] += row.amount
            own["entries"] += 1
            for bucket, codes in BUCKETS.items():
                if row.type in codes and (row.account_id, row.version) not in of_corrections:
                    own[bucket] += row.amount
        for row in corrections:
            if row.day == self.day:
                figures[row.currency, row.channel][row.bucket] += row.amount
        return figures

    def said_to_be_paid_in(self) -> dict[Place, int]:
        """Return what platforms say of recharges, and of payments that name no order of ours."""
        said: dict[Place, int] = defaultdict(int)
        orders = {(row.channel, row.order_no): row for row in self.orders}
        for record in self.records:
            order = orders.get((record.channel, record.order_no))
            counts = record.voided_by is None and record.status == "success" and self._is_mine(order)
            if counts and (order is None or order.kind == "recharge"):
                at = record.occurred_at if order is None or order.settled_at is None else order.settled_at
                if self.start <= at < self.end:
                    said[record.currency, record.channel] += record.amount
        return said

    def ordered(self) -> dict[Place, int]:
        """Return what orders say was consumed, and what was reset without one."""
        consumed: dict[Place, int] = defaultdict(int)
        for order in self.orders:
            is_settled = order.settled_at is not None and self.start <= order.settled_at < self.end
            if is_settled and order.kind in CONSUMING and self._is_mine(order):
                consumed[order.currency, order.channel] += order.amount
        for row in self.today:
            if row.type == 232 and row.order_no is None:
                consumed[row.currency, row.channel] -= row.amount
        return consumed


def minor(text: str, currency: str) -> int:
    return int(Decimal(text).scaleb(fraction_digits(currency)))


def some(values: dict[Place, int]) -> dict[Place, int]:
    return {place: value for place, value in values.items() if value}


def shown(view: Any, check: str, side: str) -> dict[Place, int]:
    """Return one side of a check, by place, where it is not zero."""
    items = [item for item in view["items"] if item["name"] == check]
    return some({(item["currency"], item["channel"]): minor(item[side], item["currency"]) for item in items})


def assert_as_counted(lived: Lived, passport: Passport) -> None:
    for day in DAYS:
        counted = Counted(lived.session, day, lived.zone_name, passport.merchants)
        view = read_daily_checks(lived.session, passport, day=day, zone_name=lived.zone_name, threshold=THRESHOLD)
        assert_figures(view["figures"], counted.figures)
        figures = counted.figures.items()
        assert shown(view, "recharge_total", "expected") == some(counted.said_to_be_paid_in())
        assert shown(view, "recharge_total", "actual") == some({place: own["recharge"] for place, own in figures})
        assert shown(view, "consumption_total", "expected") == some(counted.ordered())
        consumed = {place: -own["consumption"] - own["resets"] for place, own in figures}
        assert shown(view, "consumption_total", "actual") == some(consumed)
        for check in view["items"]:
            assert_rows(lived, passport, day, check)


def assert_figures(found_figures: Any, counted: dict[Place, dict[str, int]]) -> None:
    by_place = {(item["currency"], item["channel"]): item for item in found_figures}
    for place in by_place.keys() | counted.keys():
        item, own = by_place.get(place), counted[place]
        for name, (sign, *buckets) in SHOWN.items():
            value = 0 if item is None else minor(item[name], place[0])
            assert value == sign * sum(own[bucket] for bucket in buckets), (place, name)
        assert (0 if item is None else item["entries"]) == own["entries"]


def assert_rows(lived: Lived, passport: Passport, day: date, check: Any) -> None:
    """See that the rows behind a check of amounts sum to it, and that those that do not agree are those that do not."""
    sides = {side: minor(check[side], check["currency"]) for side in ("expected", "actual", "difference")}
    assert sides["actual"] - sides["expected"] == sides["difference"]
    assert check["ok"] == (sides["difference"] == 0)
    if check["unit"] == "count":
        return
    asked: dict[str, Any] = {"day": day, "check": check["name"], "zone_name": lived.zone_name, "threshold": THRESHOLD}
    asked |= {"currency": check["currency"], "channel": check["channel"] or "", "limit": 500, "cursor": None}
    pages = [list_daily_check_rows(lived.session, passport, is_all=is_all, **asked) for is_all in (True, False)]
    every, differing = (page["items"] for page in pages)
    assert differing == [row for row in every if Decimal(row["difference"])]
    for side in ("difference",) if check["name"] == "refunds_complete" else ("expected", "actual", "difference"):
        assert sum(minor(row[side], row["currency"]) for row in every) == sides[side]  # type: ignore[literal-required]


@pytest.mark.parametrize("zone_name", ["UTC", "Europe/Berlin", "Asia/Kathmandu"])
@pytest.mark.parametrize("seed", range(4))
def test_checks_rows_and_figures_are_as_a_plain_count_has_them(
    session_of: Callable[[str], Session], bob: Passport, charlie: Passport, zone_name: str, seed: int
) -> None:
    lived = Lived(session_of("ledger"), random.Random(f"{zone_name} {seed}"), zone_name)
    assert_as_counted(lived, ALICE)
    lived.correct_some()
    for passport in (ALICE, bob, charlie):
        assert_as_counted(lived, passport)
    for day in DAYS:
        close_day(lived.session, ALICE, day=day, reason="x", is_forced=True, zone_name=zone_name)
    month = read_monthly_figures(lived.session, ALICE, first=date(2026, 10, 1), zone_name=zone_name)
    assert month["after_close"] == []
    lived.correct_some()
    later = read_monthly_figures(lived.session, ALICE, first=date(2026, 10, 1), zone_name=zone_name)
    sealed = [day for day in later["days"] if day["is_closed"]]
    assert sealed == [day for day in month["days"] if day["is_closed"]]
    assert_month(lived, later)


def assert_month(lived: Lived, month: Any) -> None:
    """See that a month is the sum of its days, and together with what came after their close what is counted now."""
    days = [date(2026, 10, 1) + timedelta(days=off) for off in range(31)]
    now = [Counted(lived.session, day, lived.zone_name) for day in days]
    for item in month["items"]:
        place = (item["currency"], item["channel"])
        parts = [part for day in month["days"] for part in day["items"] if (part["currency"], part["channel"]) == place]
        after = [part for part in month["after_close"] if (part["currency"], part["channel"]) == place]
        for name, (sign, *buckets) in SHOWN.items():
            assert Decimal(item[name]) == sum(Decimal(part[name]) for part in parts)
            counted = sign * sum(day.figures[place][bucket] for day in now for bucket in buckets)
            assert sum(minor(part[name], place[0]) for part in [item, *after]) == counted
