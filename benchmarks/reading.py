"""The balance log at the gateway, with few entries and with many, against the same query on the database alone.

`DATABASE_URL=… AMQP_URL=… python -m benchmarks.reading [--entries 10000000]`; the addresses are those of servers
where databases may be made and of a virtual host that nothing else uses. A million entries take two minutes.
"""

import argparse
import http.client
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

import orjson
import sqlalchemy as sa
from sqlalchemy.orm import Session

from benchmarks.ledger_system import MERCHANT, LedgerSystem, ledger_system
from services.ledger.queries import entries as queries
from services.ledger.usecases.postings import log_filter
from shared.paging import encode_cursor
from shared.passport import service_passport

FEW = 100_000
DAYS = 30
USERS = 10_000
CHUNK = 250_000
PAGE_2000 = 2_000 * 50
NO_FILTER: dict[str, Any] = dict.fromkeys(
    (
        *("date_text", "from_time", "to_time", "user_id", "holder_type", "merchant_id", "currency", "order_no"),
        *("min_amount", "max_amount"),
    )
)

# Thirty days that end now, with the types that a day has. Versions rise, digests are none: nothing here is proved.
FILL = """
with made as (
    select n, (n * 7919 + n * n % 13) % :users as user_number, :first + n as place
      from generate_series(1, cast(:count as bigint)) n
)
insert into entries (account_id, version, amount, balance_before, balance_after, created_at, type, merchant_id,
    holder_type, holder_id, currency, counter_account, order_no, channel, actor_id, actor_name, actor_type, request_id,
    digest)
select 1 + user_number, place, 100, n, n + 100,
       now() - make_interval(days => :days) * (1 - place / cast(:all as float8)),
       (array[321, 321, 321, 323, 331, 331, 332, 325])[1 + n % 8], :merchant, 'user', 'user-' || user_number, 'CNY',
       'clearing', 'P' || place, 'alipay', 'usr_1', 'Alice', 'user', 'req_1', ''
  from made
"""

ROLL_UP = """
delete from hourly_totals;
insert into hourly_totals (hour, merchant_id, currency, type, channel, entries, increase, decrease)
select date_trunc('hour', created_at, 'UTC'), merchant_id, currency, type, coalesce(channel, ''), count(*), sum(amount),
       0
  from entries group by 1, 2, 3, 4, 5
"""


def main() -> int:
    """Measure with few and with many entries, and print both and the ratio. Returns: 1 when anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement")
    options = parser.parse_args()
    few: dict[str, tuple[float, float]] = {}
    with ledger_system() as system:
        for entries in (FEW, options.entries):
            fill(system.engine, entries)
            print(f"\n{entries} entries over {DAYS} days, milliseconds\n")
            print(f"{'':32}{'gateway p50':>12}{'p99':>8}{'database p50':>14}{'p99':>8}{'p99 of few':>12}")
            for name, (query, ask) in loads(system).items():
                ours = measure(gateway(system, query), options.seconds)
                floor = measure(database(system, ask), options.seconds)
                few.setdefault(name, ours)
                ratio = ours[1] / few[name][1]
                print(f"{name:32}{ours[0]:12.1f}{ours[1]:8.1f}{floor[0]:14.1f}{floor[1]:8.1f}{ratio:12.2f}")
    return 0


def fill(engine: sa.Engine, entries: int) -> None:
    """Have so many entries, and no others."""
    started = time.perf_counter()
    with engine.begin() as connection:
        connection.exec_driver_sql("truncate entries, accounts")
        connection.exec_driver_sql(
            "insert into accounts (id, merchant_id, holder_type, holder_id, currency)"
            f" select 1 + n, %(m)s, 'user', 'user-' || n, 'CNY' from generate_series(0, {USERS - 1}) n",
            {"m": MERCHANT},
        )
        for month in ("date_trunc('month', now() - interval '1 month')", "date_trunc('month', now())"):
            connection.exec_driver_sql(f"select create_entry_partition(({month})::date)")
    for first in range(0, entries, CHUNK):
        with engine.begin() as connection:
            numbers = {"first": first, "count": min(CHUNK, entries - first), "all": entries}
            connection.execute(sa.text(FILL), numbers | {"users": USERS, "days": DAYS, "merchant": MERCHANT})
    with engine.begin() as connection:
        connection.exec_driver_sql(ROLL_UP)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("vacuum analyze entries")
        connection.exec_driver_sql("vacuum analyze accounts")
    print(f"filled in {time.perf_counter() - started:.0f} s", file=sys.stderr)


def loads(system: LedgerSystem) -> dict[str, tuple[str, Callable[[Session], Any]]]:
    """Return what is asked: the query of the URL, and the same of the database."""
    today = datetime.now(UTC).date().isoformat()
    month = f"{today[:8]}01T00:00:00Z"
    with system.engine.connect() as connection:
        row = connection.exec_driver_sql(
            "select (extract(epoch from created_at) * 1000000)::bigint, account_id, version from entries"
            f" order by created_at desc, account_id desc, version desc offset least({PAGE_2000 - 1},"
            " (select count(*) - 60 from entries)) limit 1"
        ).one()
        order_no = connection.exec_driver_sql("select order_no from entries limit 1 offset 99").scalar_one()
    cursor = encode_cursor(list(row))
    since = {"from_time": "2020-01-01T00:00:00Z"}

    def log(*, cursor: str | None = None, types: Any = (), **filters: Any) -> Callable[[Session], Any]:
        wanted = log_filter(zone_name="UTC", types=types, groups=(), **NO_FILTER | filters)
        return lambda s: queries.list_balance_logs(s, service_passport("benchmark"), wanted, limit=50, cursor=cursor)

    def summary(**filters: Any) -> Callable[[Session], Any]:
        wanted = log_filter(zone_name="UTC", types=(), groups=(), **NO_FILTER | filters)
        return lambda s: queries.summarize_balance_logs(s, service_passport("benchmark"), wanted)

    return {
        "today": ("/balance-logs", log()),
        "user, 30 days": (_url(**{"user_id": "user-77", "from": since["from_time"]}), log(user_id="user-77", **since)),
        "type and day": (_url(type=325, date=today), log(types=[325], date_text=today)),
        "order": (_url(**{"order_no": order_no, "from": since["from_time"]}), log(order_no=order_no, **since)),
        "page 2000": (_url(**{"cursor": cursor, "from": since["from_time"]}), log(cursor=cursor, **since)),
        "summary of today": ("/balance-logs/summary", summary()),
        "summary of the month": (f"/balance-logs/summary?{urlencode({'from': month})}", summary(from_time=month)),
        "summary of today, amounts ≥ 1": ("/balance-logs/summary?min_amount=1", summary(min_amount="1")),
    }


def _url(**query: Any) -> str:
    return f"/balance-logs?{urlencode(query)}"


def gateway(system: LedgerSystem, path: str) -> Callable[[], None]:
    """Return what asks the gateway once, over one connection."""
    parts = urlsplit(system.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)

    def ask() -> None:
        connection.request("GET", f"{parts.path}{path}", headers={"Authorization": f"Bearer {system.token}"})
        response = connection.getresponse()
        body = response.read()
        if response.status != 200 or not orjson.loads(body)["items"]:
            raise SystemExit(f"{path} answered {response.status}: {body[:300]!r}")

    return ask


def database(system: LedgerSystem, ask: Callable[[Session], Any]) -> Callable[[], None]:
    """Return what asks the database once, in this process."""

    def once() -> None:
        with Session(system.engine) as session:
            ask(session)

    return once


def measure(ask: Callable[[], None], seconds: float) -> tuple[float, float]:
    """Return the median and the 99th percentile of one client's times, in milliseconds."""
    ask()
    times, give_up_at = [], time.perf_counter() + seconds
    while time.perf_counter() < give_up_at or len(times) < 5:
        started = time.perf_counter()
        ask()
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times), sorted(times)[min(int(len(times) * 0.99), len(times) - 1)]


if __name__ == "__main__":
    sys.exit(main())
