"""A statement of a million rows against a million orders: from the uploaded CSV to written mismatches.

`DATABASE_URL=… AMQP_URL=… python -m benchmarks.reconcile`; the addresses are those of servers where databases may be
made and of a virtual host that nothing else uses. The floor of the same run is what nobody can do without: COPY into a
temporary table without an index, analyze, one full join. Takes about two minutes.
"""

import argparse
import http.client
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
import psycopg
import sqlalchemy as sa

from benchmarks.ledger_system import MERCHANT, LedgerSystem, ledger_system

CHANNEL: Final = "alipay"
DAY: Final = "2026-11-20"
PLANTED_EVERY: Final = 1000  # a mismatch of each kind in turn
KINDS: Final = 6
MISSING_UPSTREAM, MISSING_LOCAL, OTHER_AMOUNT, PENDING, FAILED, DUPLICATE = range(KINDS)
BLOCK_BYTES: Final = 1024 * 1024
PAUSE_SECONDS: Final = 0.1
IMPORT_SECONDS_MAX: Final = 1800

CHANNEL_ROW: Final = f"insert into channels (code, name, kind) values ('{CHANNEL}', 'Alipay', 'statement')"
_ORDERS = f"""
insert into orders (order_no, merchant_id, holder_type, holder_id, kind, amount, currency, fraction_digits, channel,
    status, settled_at)
select 'P' || lpad(n::text, 12, '0'), '{MERCHANT}', 'user', 'user-' || n % 10000, 'recharge', 100 + n % 5000, 'CNY', 2,
       '{CHANNEL}', case when kind = {PENDING} then 'pending' when kind = {FAILED} then 'failed' else 'settled' end,
       case when kind in ({PENDING}, {FAILED}) then null
            else timestamptz '{DAY}' + make_interval(secs => n * 86000.0 / :orders) end
  from (select n, case when n % {PLANTED_EVERY} = 0 then n / {PLANTED_EVERY} % {KINDS} end as kind
          from generate_series(1, :orders) n) as made
"""
# The floor's own table has the columns as the file has them; its join looks at what ours compares.
_FLOOR = f"""
select count(*)
  from floor_records r full join (select * from orders where channel = '{CHANNEL}') o on o.order_no = r.order_no
 where r.order_no is null or o.order_no is null or (r.amount * 100)::bigint <> o.amount or r.currency <> o.currency
    or r.status <> case o.status when 'settled' then 'success' else o.status end
"""


@dataclass(frozen=True)
class Round:
    """How long our whole way took, and of that the upload with its import, and the matching."""

    seconds: float
    import_seconds: float
    match_seconds: float
    found: int


def main() -> int:
    """Measure, and print ours, the floor, the ratio, and the memory. Returns: 1 when something else was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with ledger_system() as system, tempfile.TemporaryDirectory() as folder:
        statement = Path(folder) / "statement.csv"
        planted = write_statement(statement, options.orders)
        _prepare(system.engine, options.orders)
        floors, rounds = [], []
        with Memory(os.getpid()) as memory:
            for _ in range(options.rounds):
                floors.append(floor_seconds(system.engine, statement))
                _forget_records(system.engine)
                rounds.append(run_once(system, statement))
        _report(options.orders, statement, floors, rounds, memory)
    return 0 if all(each.found == planted for each in rounds) else 1


def _report(orders: int, statement: Path, floors: list[float], rounds: list[Round], memory: "Memory") -> None:
    floor, ours = statistics.median(floors), statistics.median(each.seconds for each in rounds)
    megabytes = statement.stat().st_size / 1024**2
    print(f"{orders} orders, a statement of {megabytes:.0f} MiB, medians of {len(rounds)} rounds\n")
    print(f"{'floor: COPY, analyze, full join':44}{floor:>8.2f} s")
    print(f"{'ours: upload to written mismatches':44}{ours:>8.2f} s{ours / floor:>8.2f} of the floor")
    print(f"{'  upload and import':44}{statistics.median(each.import_seconds for each in rounds):>8.2f} s")
    print(f"{'  matching':44}{statistics.median(each.match_seconds for each in rounds):>8.2f} s")
    print(f"\nmismatches found: {[each.found for each in rounds]}")
    for name, mebibytes in memory.peaks().items():
        print(f"{name:44}{mebibytes:>8.0f} MiB at most")


def write_statement(path: Path, orders: int) -> int:
    """Write the platform's statement: every order but what is planted. Returns: how many mismatches that makes."""
    planted = 0
    with path.open("w") as file:
        file.write("upstream_ref,order_no,amount,fee,currency,status,time\n")
        for n in range(1, orders + 1):
            kind = n // PLANTED_EVERY % KINDS if n % PLANTED_EVERY == 0 else None
            planted += kind is not None
            if kind != MISSING_UPSTREAM:
                file.write(_line(n, orders, f"P{n:012}", more=kind == OTHER_AMOUNT))
            if kind in (MISSING_LOCAL, DUPLICATE):
                file.write(_line(n, orders, f"{'X' if kind == MISSING_LOCAL else 'P'}{n:012}", ref="V"))
    return planted


def _line(n: int, orders: int, order_no: str, *, more: bool = False, ref: str = "U") -> str:
    seconds = int(n * 86_000 / orders)
    at = f"{DAY}T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}Z"
    minor = 100 + n % 5000 + more
    return f"{ref}{n:015},{order_no},{minor // 100}.{minor % 100:02},0.00,CNY,success,{at}\n"


def _prepare(engine: sa.Engine, orders: int) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text(CHANNEL_ROW))
        connection.execute(sa.text(_ORDERS), {"orders": orders})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("vacuum analyze orders")


def _forget_records(engine: sa.Engine) -> None:
    """Have it be as before anything came in."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "truncate upstream_records, statements, mismatches, mismatch_sightings, mismatch_history, corrections,"
            " correction_entries, reconciliations cascade"
        )


def floor_seconds(engine: sa.Engine, statement: Path) -> float:
    """Return how long PostgreSQL takes for the least that must be done."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("set work_mem = '64MB'")
        started = time.perf_counter()
        cursor.execute(
            "create temporary table floor_records (upstream_ref text, order_no text, amount numeric, fee numeric,"
            " currency text, status text, at timestamptz)"
        )
        with cursor.copy("copy floor_records from stdin (format csv, header)") as copy:
            for block in _blocks(statement):
                copy.write(block)
        cursor.execute("analyze floor_records")
        cursor.execute(_FLOOR)
        return time.perf_counter() - started


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def run_once(system: LedgerSystem, statement: Path) -> Round:
    """Upload the statement, wait for its import, reconcile the day."""
    started = time.perf_counter()
    import_statement(system, statement, "csv")
    imported = time.perf_counter()
    body = orjson.dumps({"channel": CHANNEL, "date": DAY})
    run = _send(system, "POST", "/reconciliations", body, "application/json")
    done = time.perf_counter()
    return Round(done - started, imported - started, done - imported, run["found"])


def import_statement(system: LedgerSystem, statement: Path, format: str) -> int:
    """Upload a statement and wait until it is imported. Returns: how many records are new."""
    path = f"/channels/{CHANNEL}/statements?format={format}"
    with statement.open("rb") as file:
        begun = _send(system, "POST", path, file, "application/octet-stream")
    give_up_at = time.monotonic() + IMPORT_SECONDS_MAX
    while (state := _send(system, "GET", f"/statements/{begun['statement_id']}"))["status"] != "imported":
        if state["status"] != "importing" or time.monotonic() > give_up_at:
            raise SystemExit(f"the statement is {state['status']}: {state}")
        time.sleep(PAUSE_SECONDS)
    return int(state["rows_new"])


def _send(system: LedgerSystem, method: str, path: str, body: Any = None, content_type: str = "") -> Any:
    place = urlsplit(system.url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=IMPORT_SECONDS_MAX)
    headers = {"Authorization": f"Bearer {system.token}"} | ({"Content-Type": content_type} if content_type else {})
    connection.request(method, f"{place.path}{path}", body=body, headers=headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status >= 300:
        raise SystemExit(f"{method} {path}: {answer.status} {text.decode()}")
    return orjson.loads(text)


class Memory:
    """The most that each of our processes had in memory at once. Use as a context."""

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._peaks: dict[str, float] = {}
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()
        self._look()

    def peaks(self) -> dict[str, float]:
        """Return the most mebibytes by process."""
        return dict(sorted(self._peaks.items()))

    def _watch(self) -> None:
        while not self._left.wait(PAUSE_SECONDS):
            self._look()

    def _look(self) -> None:
        """Read what the kernel says is each process's high-water mark."""
        for pid in _descendants(self._parent):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:  # it has ended
                continue
            module = words[words.index("-m") + 1 :] if "-m" in words else words
            peak = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), "0")
            name = f"{' '.join(filter(None, module))[:34]} ({pid})"
            self._peaks[name] = max(self._peaks.get(name, 0.0), int(peak) / 1024)


def _descendants(parent: int) -> list[int]:
    """Return the processes that a process started, and those that these did."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent_pid = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(parent_pid, []).append(int(path.parent.name))
    found, waiting = [], [parent]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


if __name__ == "__main__":
    sys.exit(main())
