"""Whatever the balance log or the orders are filtered by: list, pages, CSV and sums say what a plain loop says.

The gateway is the real one and the ledger's calls run on a real database; only the bus between them is a fake.
"""

import csv
import io
import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from gateway.app import create_app
from gateway.configuration import Configuration
from gateway.records import Recorder
from services.ledger.calls.entries import EntryCalls
from services.ledger.calls.orders import OrderCalls
from services.ledger.domain.balance_types import BALANCE_TYPES, Sign
from services.ledger.domain.changes import Change
from services.ledger.sums import create_partitions, fold_deltas
from services.ledger.usecases import orders
from shared.errors import ServiceError
from shared.money import format_minor, fraction_digits
from shared.paging import encode_cursor
from shared.passport import Passport
from shared.rpc.wire import Answer
from tests.conftest import AURORA, BOREALIS
from tests.gateway.conftest import Gateway
from tests.gateway.people import FakeServices
from tests.services.ledger.conftest import batch, post_all, single, view_in
from tests.services.ledger.orders import ALICE, add_merchants, create, settle

ZONES: Final = ("UTC", "Asia/Shanghai", "Asia/Kathmandu", "America/New_York", "Pacific/Kiritimati")
FIRST_DAY: Final = date(2026, 3, 7)  # New York's clocks go forward on the eighth
DAYS: Final = 3
SEES: Final = {"alice": (AURORA, BOREALIS), "bob": (AURORA,), "charlie": (BOREALIS,)}
CURRENCIES: Final = ("CNY", "JPY", "USDT", "KWD")
ENTRIES: Final = 160
ORDERS: Final = 70
EXAMPLES: Final = 25  # of each world


class Ledger(EntryCalls, OrderCalls):
    """The ledger's calls, with a time zone of the test's."""

    zone = "UTC"

    def zone_name(self) -> str:
        """Return the time zone that the test says."""
        return self.zone


class Bus(FakeServices):
    """Services whose ledger reads a real database."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.ledger, self.session = Ledger(), session

    def call(self, service: str, method: str, *, passport: Passport, **arguments: Any) -> Answer:
        """Carry a call of the ledger out as its entrypoint does."""
        if service != "ledger":
            return super().call(service, method, passport=passport, **arguments)
        del arguments["timeout"], arguments["idempotency_key"]
        body = getattr(Ledger, method).__wrapped__
        with self.session.begin_nested():
            return Answer(body(self.ledger, self.session, passport, **arguments))


@dataclass
class World:
    """A ledger, and the gateway before it."""

    gateway: Gateway
    bus: Bus

    def get(self, who: str, path: str, query: Iterable[tuple[str, str]], **headers: str) -> Any:
        """Ask the gateway."""
        response = getattr(self.gateway, who).get(f"/api/v1{path}?{urlencode(list(query))}", headers=headers)
        assert response.status_code == 200, response.text
        return response

    def pages(self, who: str, path: str, query: list[tuple[str, str]], limit: int) -> list[dict[str, Any]]:
        """Return a list's items, page by page."""
        found: list[dict[str, Any]] = []
        cursor: list[tuple[str, str]] = []
        while True:
            page = self.get(who, path, [*query, ("limit", str(limit)), *cursor]).get_json()
            assert len(page["items"]) == limit or (page["next_cursor"] is None and len(page["items"]) < limit)
            found += page["items"]
            if page["next_cursor"] is None:
                return found
            cursor = [("cursor", page["next_cursor"])]

    def rows(self, who: str, path: str, query: list[tuple[str, str]]) -> list[dict[str, str]]:
        """Return a list's CSV."""
        return list(csv.DictReader(io.StringIO(self.get(who, path, query, Accept="text/csv").text)))


def stop_clock(session: Session, at: datetime) -> None:
    """Have it be exactly this instant."""
    session.execute(sa.text("create schema if not exists turned"))
    session.execute(
        sa.text(
            "create or replace function turned.clock_timestamp() returns timestamptz language sql"
            f" as $$ select timestamptz '{at.isoformat()}' $$"
        )
    )
    session.execute(sa.text("set local search_path = turned, pg_catalog, public"))


def instants(rng: random.Random) -> list[datetime]:
    """Return instants of a few days: any, whole hours, and where days begin in one of the zones, to the microsecond."""
    edges = [
        datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)
        for zone in ZONES
        for day in (FIRST_DAY + timedelta(days=n) for n in range(DAYS + 1))
    ]
    start = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, tzinfo=UTC)
    hours = [start + timedelta(hours=rng.randrange(24 * DAYS)) for _ in range(10)]
    anywhen = [start + timedelta(seconds=rng.uniform(0, 86_400 * DAYS)) for _ in range(40)]
    exact = [at + timedelta(microseconds=more) for at in edges + hours for more in (-1, 0)]
    return sorted(rng.sample(exact, 40) + anywhen)


def any_change(rng: random.Random) -> Change:
    kind = rng.choice(list(BALANCE_TYPES.values()))
    currency = rng.choice(CURRENCIES)
    minor = rng.choice((1, 5, 99, 100, 101, 1_000, 123_456, 10 ** rng.randrange(1, 9)))
    signs = {Sign.POSITIVE: 1, Sign.NEGATIVE: -1, Sign.ZERO: 0, Sign.ZERO_OR_NEGATIVE: rng.choice((0, -1))}
    holders = [("user", "user-1"), ("user", "user-2"), ("merchant", ""), ("card", "card-1"), ("card", "user-1")]
    merchant_id = rng.choice((AURORA, BOREALIS))
    holder_type, holder_id = rng.choice(holders)
    order_no = rng.choice((None, "P-1", "P-2", "p%_/1", "=1+1"))
    reason = "because" if kind.is_admin else None
    amount = minor * signs.get(kind.sign, rng.choice((1, -1)))
    return Change(
        merchant_id, holder_type, holder_id or merchant_id, kind, amount, currency, order_no, "alipay", "a\nb", reason
    )  # fmt: skip


def post_changes(session: Session, rng: random.Random) -> list[dict[str, Any]]:
    """Post changes at many instants, the last ones now. Returns: the entries as they were answered."""
    entries: list[dict[str, Any]] = []
    session.execute(sa.text("select create_entry_partition('2026-03-01')"))
    create_partitions(session)
    whens = [*instants(rng), None]
    for n, at in enumerate(whens):
        if at is not None:
            stop_clock(session, at)
        else:
            session.execute(sa.text("set local search_path = public"))
        changes = [any_change(rng) for _ in range(max(ENTRIES // len(whens), 2))]
        [outcome] = post_all(session, batch(changes, is_atomic=False))
        assert isinstance(outcome, Answer)
        entries += [item["entry"] for item in view_in(outcome)["items"] if "entry" in item]
        if n % 7 == 0:
            fold_deltas(session)
    return entries


def make_orders(session: Session, rng: random.Random) -> list[dict[str, Any]]:
    """Make orders at many instants, some of them settled and failed. Returns: the orders as they were answered."""
    made: list[dict[str, Any]] = []
    for at in rng.sample(instants(rng), ORDERS):
        stop_clock(session, at)
        currency = rng.choice(CURRENCIES)
        order = create(
            session,
            merchant_id=rng.choice((AURORA, BOREALIS)),
            user_id=rng.choice(("user-1", "user-2", None)),
            kind=rng.choice(("recharge", "payment", "paid_reset", "recharge")),
            amount=format_minor(rng.choice((1, 99, 100, 1_000, 123_456)), currency),
            currency=currency,
            channel=rng.choice(("alipay", "stripe", None)),
        )
        act: Callable[[], Any] = rng.choice(
            (
                lambda order=order: order,
                lambda order=order: orders.fail_order(session, ALICE, order_no=order["order_no"], reason="gone"),
                lambda order=order: settle(session, order["order_no"], upstream_ref="up=1"),
            )
        )
        savepoint = session.begin_nested()
        try:
            order = act()
            savepoint.commit()
        except ServiceError:
            savepoint.rollback()
        made.append(order)
    session.execute(sa.text("set local search_path = public"))
    return made


@pytest.fixture
def world(session_of: Callable[[str], Session], recorder: Recorder) -> World:
    """A ledger that knows two merchants and nothing else, and the gateway before it."""
    session = session_of("ledger")
    add_merchants(session)
    bus = Bus(session)
    return World(
        Gateway(create_app(Configuration(amqp_url="", passport_keys={}), client=bus, recorder=recorder), bus), bus
    )


@pytest.fixture(params=[1, 2])
def entered(request: pytest.FixtureRequest, world: World) -> list[dict[str, Any]]:
    """The entries of a few days, as they were answered when they were posted."""
    return post_changes(world.bus.session, random.Random(request.param))


@pytest.fixture(params=[1, 2])
def ordered(request: pytest.FixtureRequest, world: World) -> list[dict[str, Any]]:
    """The orders of a few days, as they were answered when they were made, settled or failed."""
    return make_orders(world.bus.session, random.Random(request.param))


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def some(values: Iterable[Any]) -> Any:
    return st.one_of(st.none(), st.sampled_from(list(values)))


def text_of(at: datetime) -> str:
    return at.isoformat()


WHENS: Final = [
    datetime(2026, 3, 6 + n, hour, minute, 0, micro, tzinfo=ZoneInfo(zone))
    for n in range(5)
    for zone in ("UTC", "Asia/Shanghai", "Asia/Kathmandu")
    for hour, minute, micro in ((0, 0, 0), (0, 0, 1), (11, 0, 0), (11, 30, 0))
]
AMOUNTS: Final = ("0", "1", "0.01", "0.000001", "1.00", "1.01", "10", "1000", "1234.56", "0.005", "9223372036854775807")
TYPES: Final = [
    *(str(code) for code in BALANCE_TYPES),
    "234",
    "Refund",
    "Admin Adjust",
    "Purchase",
    "Platform",
]
GROUPS: Final = sorted({t.group for t in BALANCE_TYPES.values()})
log_filters = st.fixed_dictionaries(
    {
        "day": some([FIRST_DAY + timedelta(days=n) for n in range(-1, DAYS + 1)]),
        "from": some(WHENS),
        "to": some(WHENS),
        "user_id": some(["user-1", "user-2", "card-1"]),
        "holder_type": some(["user", "merchant", "card"]),
        "merchant_id": some([AURORA, BOREALIS, "mer_none"]),
        "currency": some([*CURRENCIES, "EUR"]),
        "order_no": some(["P-1", "p%_/1", "=1+1", "none"]),
        "type": st.lists(st.sampled_from(TYPES), max_size=3),
        "group": st.lists(st.sampled_from(GROUPS), max_size=2),
        "min_amount": some(AMOUNTS),
        "max_amount": some(AMOUNTS),
    }
)


def query_of(wanted: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a filter as a query; a list repeats its name."""
    pairs: list[tuple[str, str]] = []
    for name, value in wanted.items():
        if isinstance(value, list):
            pairs += [(name, each) for each in value]
        elif value is not None:
            pairs.append((name, text_of(value) if isinstance(value, datetime) else str(value)))
    return pairs


def fits_range(at: datetime, wanted: dict[str, Any]) -> bool:
    return (wanted["from"] is None or at >= wanted["from"]) and (wanted["to"] is None or at < wanted["to"])


def fits_amount(amount: str, wanted: dict[str, Any]) -> bool:
    size = abs(Decimal(amount))
    least, greatest = wanted["min_amount"], wanted["max_amount"]
    return (least is None or size >= Decimal(least)) and (greatest is None or size <= Decimal(greatest))


def fits_entry(entry: dict[str, Any], wanted: dict[str, Any], zone: str, today: date) -> bool:
    at = instant(entry["time"])
    if wanted["day"] is not None or (wanted["from"] is None and wanted["to"] is None):
        is_then = at.astimezone(ZoneInfo(zone)).date() == (wanted["day"] or today)
    else:
        is_then = fits_range(at, wanted)
    words = (str(entry["type"]), entry["type_name"], entry["group"])
    exact = ("user_id", "holder_type", "merchant_id", "currency", "order_no")
    return (
        is_then
        and all(wanted[name] is None or entry[name] == wanted[name] for name in exact)
        and (not wanted["type"] or any(word in wanted["type"] for word in words))
        and (not wanted["group"] or entry["group"] in wanted["group"])
        and fits_amount(entry["amount"], wanted)
    )


def place(entry: dict[str, Any]) -> tuple[datetime, list[int]]:
    return instant(entry["time"]), [int(part) for part in entry["entry_id"].split("_")[1:]]


def sums(entries: list[dict[str, Any]], *names: str) -> dict[tuple[Any, ...], tuple[int, str, str, str]]:
    """Return count, increase, decrease and net of each group of entries."""
    groups: dict[tuple[Any, ...], list[Decimal]] = defaultdict(list)
    for entry in entries:
        groups[*(entry[name] for name in names), entry["currency"]].append(Decimal(entry["amount"]))

    def shown(amount: Decimal, currency: str) -> str:
        return format_minor(int(amount.scaleb(fraction_digits(currency))), currency)

    return {
        key: (
            len(amounts),
            shown(sum((a for a in amounts if a > 0), Decimal(0)), key[-1]),
            shown(sum((a for a in amounts if a < 0), Decimal(0)), key[-1]),
            shown(sum(amounts, Decimal(0)), key[-1]),
        )
        for key, amounts in groups.items()
    }


def said(rows: list[dict[str, Any]], *names: str) -> dict[tuple[Any, ...], tuple[int, str, str, str]]:
    found = {
        (*(row[name] for name in names), row["currency"]): (
            row["count"], row["increase"], row["decrease"], row["net"],
        )
        for row in rows
    }  # fmt: skip
    assert len(found) == len(rows)
    return found


def as_cells(items: list[dict[str, Any]], names: Iterable[str]) -> list[list[str]]:
    """Return what a CSV says of items; what a spreadsheet would run has an apostrophe before it."""

    def cell(value: Any) -> str:
        text = "" if value is None else str(value)
        return f"'{text}" if text.startswith("=") else text

    return [[cell(item[name]) for name in names] for item in items]


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wanted=log_filters,
    who=st.sampled_from(list(SEES)),
    zone=st.sampled_from(ZONES),
    limit=st.sampled_from((3, 25, 500)),
)
def test_log_its_pages_its_csv_and_its_sums_are_those_of_a_plain_loop(
    world: World, entered: list[dict[str, Any]], wanted: dict[str, Any], who: str, zone: str, limit: int
) -> None:
    world.bus.ledger.zone = zone
    today = datetime.now(ZoneInfo(zone)).date()
    if wanted["day"] is not None:
        wanted |= {"from": None, "to": None}
    query = query_of({"date" if name == "day" else name: value for name, value in wanted.items()})

    found = world.pages(who, "/balance-logs", query, limit)
    rows = world.rows(who, "/balance-logs", query)
    summary = world.get(who, "/balance-logs/summary", query).get_json()

    if datetime.now(ZoneInfo(zone)).date() != today:
        return  # it was midnight
    seen = [entry for entry in entered if entry["merchant_id"] in SEES[who]]
    expected = sorted((e for e in seen if fits_entry(e, wanted, zone, today)), key=place, reverse=True)
    assert found == expected
    names = ("entry_id", "amount", "currency", "balance", "order_no", "type", "time")
    assert [[row[name] for name in names] for row in rows] == as_cells(expected, names)
    assert said(summary["items"], "type") == sums(expected, "type")
    assert said(summary["totals"]) == sums(expected)


order_filters = st.fixed_dictionaries(
    {
        "from": some(WHENS),
        "to": some(WHENS),
        "kind": some(["recharge", "payment", "paid_reset", "withdraw"]),
        "status": some(["pending", "failed", "settled", "refunded"]),
        "merchant_id": some([AURORA, BOREALIS, "mer_none"]),
        "user_id": some(["user-1", "user-2", AURORA]),
        "channel": some(["alipay", "stripe", "none"]),
        "currency": some([*CURRENCIES, "EUR"]),
        "min_amount": some(AMOUNTS),
        "max_amount": some(AMOUNTS),
    }
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=order_filters, who=st.sampled_from(list(SEES)), limit=st.sampled_from((3, 25, 500)))
def test_orders_their_pages_and_their_csv_are_those_of_a_plain_loop(
    world: World, ordered: list[dict[str, Any]], wanted: dict[str, Any], who: str, limit: int
) -> None:
    query = query_of(wanted)

    found = world.pages(who, "/orders", query, limit)
    rows = world.rows(who, "/orders", query)

    exact = ("kind", "status", "merchant_id", "user_id", "channel", "currency")
    expected = [
        order
        for order in ordered
        if order["merchant_id"] in SEES[who]
        and fits_range(instant(order["created_at"]), wanted)
        and all(wanted[name] is None or order[name] == wanted[name] for name in exact)
        and fits_amount(order["amount"], wanted)
    ]
    made = {order["order_no"]: n for n, order in enumerate(ordered)}
    expected.sort(key=lambda order: (instant(order["created_at"]), made[order["order_no"]]), reverse=True)
    assert found == expected
    names = ("order_no", "kind", "amount", "currency", "status", "channel", "upstream_ref", "created_at")
    assert [[row[name] for name in names] for row in rows] == as_cells(expected, names)


def test_log_of_today_goes_on_after_midnight(world: World, entered: list[dict[str, Any]]) -> None:
    day = FIRST_DAY + timedelta(days=1)
    of_day = [entry for entry in entered if instant(entry["time"]).date() == day]
    newest_first = sorted(of_day, key=place, reverse=True)
    # What was today's list when its first page was read.
    first = world.get("alice", "/balance-logs", [("date", day.isoformat()), ("limit", "3")]).get_json()
    rest = world.get("alice", "/balance-logs", [("limit", "500"), ("cursor", first["next_cursor"])]).get_json()
    assert (first["items"], rest["items"]) == (newest_first[:3], newest_first[3:])


@pytest.mark.parametrize("position", [[253402300799999999, 1, 1], [2**62, 1, 1], [1, 2]])
def test_cursor_of_no_day_is_refused(world: World, position: list[int]) -> None:
    world.bus.ledger.zone = "Pacific/Kiritimati"
    response = world.gateway.alice.get(f"/api/v1/balance-logs?cursor={encode_cursor(position)}")
    assert (response.status_code, response.get_json()["code"]) == (422, "invalid_cursor")


def test_page_does_not_move_while_rows_are_added(world: World, entered: list[dict[str, Any]]) -> None:
    path, query = "/balance-logs", [("from", "2026-03-01T00:00:00Z"), ("min_amount", "0.01"), ("limit", "5")]
    rng, found = random.Random(7), []  # plays a client
    page = world.get("alice", path, query).get_json()
    while page["next_cursor"] is not None:
        found += page["items"]
        post_all(world.bus.session, single(any_change(rng)))
        page = world.get("alice", path, [*query, ("cursor", page["next_cursor"])]).get_json()
    found += page["items"]
    fitting = [entry for entry in entered if abs(Decimal(entry["amount"])) >= Decimal("0.01")]
    assert found == sorted(fitting, key=place, reverse=True)


def test_accounts_and_the_trial_balance_are_those_of_a_plain_loop(world: World, entered: list[dict[str, Any]]) -> None:
    by_version = sorted(entered, key=lambda entry: entry["version"])
    last = {int(entry["entry_id"].split("_")[1]): entry for entry in by_version}
    names = ("merchant_id", "user_id", "holder_type", "currency")
    choices = ([None, AURORA, "mer_none"], [None, "user-1", "card-1"], [None, "user", "card"], [None, "KWD", "EUR"])
    shown = ("user_id", "holder_type", "holder_id", "merchant_id", "currency", "balance", "version")
    for who in SEES:
        seen = [last[number] for number in sorted(last, reverse=True) if last[number]["merchant_id"] in SEES[who]]
        for values in itertools.product(*choices):
            wanted = dict(zip(names, values, strict=True))
            found = world.pages(who, "/accounts", query_of(wanted), 500)
            expected = [e for e in seen if all(wanted[name] in (None, e[name]) for name in names)]
            assert [[item[name] for name in shown] for item in found] == [[e[name] for name in shown] for e in expected]
            assert all((item["held"], item["available"]) == ("0", item["balance"]) for item in found)
        assert world.pages(who, "/accounts", [], 3) == world.pages(who, "/accounts", [], 500)
        for trial in world.get(who, "/trial-balance", []).get_json()["items"]:
            held = sum(Decimal(e["balance"]) for e in seen if e["currency"] == trial["currency"])
            assert (trial["sum"], Decimal(trial["holders"]), Decimal(trial["system"])) == ("0", held, -held)
