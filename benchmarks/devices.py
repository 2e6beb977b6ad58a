"""Devices: heartbeats of a fleet, rows of its log, searches of them, beside floors of the same run.

`DATABASE_URL=… AMQP_URL=… python -m benchmarks.devices [--devices 10000] [--rows 1000000]`; the addresses are those of
a server where databases may be made and of a virtual host that nothing else uses. About five minutes.
A fleet of 10 000 with a heartbeat each minute needs 167 heartbeats a second. Targets: that, one by one over HTTP; 5 000
rows/s of the log, over HTTP too; a search's p99 50 ms, of a keyword 100 ms.
"""

import argparse
import http.client
import itertools
import random
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import orjson
import sqlalchemy as sa
from sqlalchemy.orm import sessionmaker

from benchmarks.device_search import COMMON_WORD, DAYS, RARE_WORD, print_searches
from benchmarks.device_system import DeviceSystem, device_id, device_system, make_fleet
from benchmarks.probe_furniture import cpu_seconds, own_database
from services.cards.cipher import NumberCipher
from services.cards.devices import heartbeats, logs
from services.cards.devices.domain import HeartbeatRule
from shared.passport import service_passport
from shared.rpc.wire import Call, current_call
from shared.times import parse_rfc3339, rfc3339, utc_now

BATCH = 500
CLIENTS = 8
ACTIONS = ("payment", "login", "config", "sync")
TARGET_ROWS_PER_SECOND = 5_000
NEEDED_PER_SECOND = 10_000 / 60

_PASSPORT = service_passport("benchmarks")
_RULE = HeartbeatRule(interval_seconds=60, grace_seconds=120)
_CIPHER = NumberCipher(key=secrets.token_bytes(32), key_id="k1", index_key=secrets.token_bytes(32))
_PLAIN_UPDATE = "update device_presence set last_seen_at = clock_timestamp() where device_id = %(id)s"
_PLAIN_UPDATES = "update device_presence set last_seen_at = clock_timestamp() where device_id = any(%(ids)s)"
_BARE = (
    "create table bare (device_id text, event_id text, time timestamptz, card_id text, action text, result text,"
    " ip text, detail text)"
)
_UNNEST = (
    "insert into bare select * from unnest(%(c0)s::text[], %(c1)s::text[], %(c2)s::timestamptz[], %(c3)s::text[],"
    " %(c4)s::text[], %(c5)s::text[], %(c6)s::text[], %(c7)s::text[])"
)

Work = Callable[[random.Random], int]


def main() -> int:
    """Measure and print. Returns: 0 where the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the log")
    parser.add_argument("--seconds", type=float, default=5, help="of each load")
    options = parser.parse_args()
    with own_database("cards") as url:
        engine = sa.create_engine(url, pool_size=CLIENTS + 2, connect_args={"options": "-c timezone=UTC"})
        make_fleet(engine, options.devices)
        _print_heartbeats(engine, options.devices, options.seconds)
        is_met = _print_ingestion(engine, options.devices, options.rows)
        is_met = print_searches(engine, devices=options.devices) and is_met
        with device_system(url) as system:
            is_met = _print_whole_way(system, options.devices, options.seconds) and is_met
        engine.dispose()
    return 0 if is_met else 1


def _print_heartbeats(engine: sa.Engine, devices: int, seconds: float) -> None:
    def plain(rng: random.Random) -> int:
        with engine.begin() as connection:
            connection.exec_driver_sql(_PLAIN_UPDATE, {"id": device_id(rng.randrange(devices))})
        return 1

    def plain_fleet(rng: random.Random) -> int:
        with engine.begin() as connection:
            connection.exec_driver_sql(_PLAIN_UPDATES, {"ids": _fleet(rng, devices)})
        return BATCH

    def ours(rng: random.Random) -> int:
        with _session(engine) as session:
            heartbeats.hear_device(session, _PASSPORT, _RULE, device_id=device_id(rng.randrange(devices)))
        return 1

    def our_fleet(rng: random.Random) -> int:
        with _session(engine) as session:
            return heartbeats.hear_devices(session, _PASSPORT, _RULE, device_ids=_fleet(rng, devices))["seen"]

    print(f"{f'heartbeats of {devices:,} devices':52}{'per second':>12}{'of floor':>10}")
    for clients in (1, CLIENTS):
        floor = _per_second(plain, clients, seconds)
        _print_rate(f"floor: one plain update, {clients} clients", floor)
        _print_rate(f"hear_device, {clients} clients", _per_second(ours, clients, seconds), floor)
    floor = _per_second(plain_fleet, 1, seconds)
    _print_rate(f"floor: one plain update of {BATCH}", floor)
    _print_rate(f"hear_devices, fleets of {BATCH}", _per_second(our_fleet, 1, seconds), floor)
    print(f"a look for silent devices, of which there are none: {_look_ms(engine):.1f} ms\n")


def _fleet(rng: random.Random, devices: int) -> list[str]:
    return [device_id(number) for number in rng.sample(range(devices), BATCH)]


def _look_ms(engine: sa.Engine) -> float:
    times = []
    for _ in range(20):
        started = time.perf_counter()
        with _session(engine) as session:
            resumed_at = heartbeats.look(session) - timedelta(hours=1)
            heartbeats.miss_devices(session, _RULE, resumed_at=resumed_at, actor_name="cards")
        times.append((time.perf_counter() - started) * 1000)
    return median(times)


def _session(engine: sa.Engine) -> Any:
    """Give a session that commits, within a call, so that events can be told of."""
    current_call.set(Call(service="cards", method="benchmark", passport=_PASSPORT, arguments={}))
    return sessionmaker(engine).begin()


def _per_second(work: Work, clients: int, seconds: float) -> float:
    """Return how much so many clients do in a second, each as fast as it can."""
    give_up_at = time.perf_counter() + seconds

    def run(number: int) -> int:
        rng, done = random.Random(number), 0
        while time.perf_counter() < give_up_at:
            done += work(rng)
        return done

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(run, range(clients))) / seconds


def _print_rate(name: str, rate: float, floor: float | None = None) -> None:
    ratio = "" if floor is None else f"{rate / floor:.2f}"
    print(f"{name:52}{rate:>12,.0f}{ratio:>10}")


def _rows(rng: random.Random, numbers: Iterator[int], count: int) -> list[dict[str, Any]]:
    """Make rows of one device, spread over sixty days; one in 5 000 has the rare word, one in 20 failed."""
    now, made = utc_now(), []
    for number in itertools.islice(numbers, count):
        word = RARE_WORD if number % 5_000 == 0 else COMMON_WORD if number % 10 == 0 else "paid"
        made.append(
            {
                "event_id": f"evt-{number:012}",
                "time": rfc3339(now - timedelta(seconds=rng.random() * DAYS * 86_400)),
                "action": ACTIONS[number % len(ACTIONS)],
                "result": "failure" if number % 20 == 0 else "success",
                "ip": f"192.0.2.{number % 250}",
                "detail": f"{word} {number % 997}.50 CNY at counter {number % 31}, receipt {rng.randrange(10**6):06}",
            }
        )
    return made


def _print_ingestion(engine: sa.Engine, devices: int, rows: int) -> bool:
    rng, numbers = random.Random(5), itertools.count(1)
    samples = [_rows(rng, numbers, BATCH) for _ in range(60)]
    floors = {"unnest": _unnest_per_second(engine, samples), "COPY": _copy_per_second(engine, samples)}
    started = time.perf_counter()
    progress = [0]

    def store(batch: list[dict[str, Any]], number: int) -> None:
        with _session(engine) as session:
            view = logs.store_logs(session, _PASSPORT, _CIPHER, device_id=device_id(number % devices), rows=batch)
        progress[0] += view["stored"]

    for number, batch in enumerate(samples):
        store(batch, number)
    first = progress[0] / (time.perf_counter() - started)
    making = 0.0
    for number in range(len(samples), rows // BATCH):
        begun = time.perf_counter()
        batch = _rows(rng, numbers, BATCH)
        making += time.perf_counter() - begun
        store(batch, number)
    whole = progress[0] / (time.perf_counter() - started - making)
    begun = time.perf_counter()
    for number, batch in enumerate(samples):
        store(batch, number)
    again = len(samples) * BATCH / (time.perf_counter() - begun)
    print(f"{'rows of the log':52}{'rows/s':>12}{'of unnest':>10}{'of COPY':>10}")
    for name, rate in (
        (f"floor: unnest of {BATCH} into a table without an index", floors["unnest"]),
        (f"floor: COPY of {BATCH} into a table without an index", floors["COPY"]),
        (f"store_logs, {BATCH} a batch, into an empty log", first),
        (f"store_logs, {BATCH} a batch, all {progress[0]:,} rows", whole),
        ("the same rows again: duplicates", again),
    ):
        print(f"{name:52}{rate:>12,.0f}{rate / floors['unnest']:>10.2f}{rate / floors['COPY']:>10.2f}")
    print()
    return whole >= TARGET_ROWS_PER_SECOND


def _unnest_per_second(engine: sa.Engine, batches: list[list[dict[str, Any]]]) -> float:
    with engine.begin() as connection:
        connection.exec_driver_sql(_BARE)
    columns = [_bare_columns(batch) for batch in batches]
    started = time.perf_counter()
    for each in columns:
        with engine.begin() as connection:
            connection.exec_driver_sql(_UNNEST, {f"c{n}": column for n, column in enumerate(each)})
    return len(batches) * BATCH / (time.perf_counter() - started)


def _bare_columns(batch: list[dict[str, Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*(_bare_row(row) for row in batch), strict=True)]


def _bare_row(row: dict[str, Any]) -> tuple[Any, ...]:
    return (device_id(1), row["event_id"], parse_rfc3339(row["time"]), None, row["action"], row["result"], row["ip"],
            row["detail"])  # fmt: skip


def _copy_per_second(engine: sa.Engine, batches: list[list[dict[str, Any]]]) -> float:
    ready = [[_bare_row(row) for row in batch] for batch in batches]
    started = time.perf_counter()
    for batch in ready:
        with engine.begin() as connection:
            driver: Any = connection.connection.driver_connection
            with driver.cursor() as cursor, cursor.copy("copy bare from stdin") as copy:
                for row in batch:
                    copy.write_row(row)
    return len(batches) * BATCH / (time.perf_counter() - started)


def _print_whole_way(system: DeviceSystem, devices: int, seconds: float) -> bool:
    local, numbers = threading.local(), itertools.count(10**9)

    def send(path: str, body: Any) -> Any:
        if not hasattr(local, "connection"):
            parts = urlsplit(system.url)
            local.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        headers = {"Authorization": f"Bearer {system.token}", "Content-Type": "application/json"}
        local.connection.request("POST", f"/api/v1{path}", orjson.dumps(body), headers)
        answer = local.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path} answered {answer.status}: {text[:300]!r}")
        return orjson.loads(text)

    def beat(rng: random.Random) -> int:
        send(f"/devices/{device_id(rng.randrange(devices))}/heartbeat", {})
        return 1

    def fleet(rng: random.Random) -> int:
        return int(send("/devices/heartbeats", {"device_ids": _fleet(rng, devices)})["seen"])

    def store(rng: random.Random) -> int:
        path = f"/devices/{device_id(rng.randrange(devices))}/logs"
        return int(send(path, {"rows": _rows(rng, numbers, BATCH)})["stored"])

    print(f"{'the whole way: HTTP, gateway, bus, cards, database':52}{'per second':>12}{'of needed':>10}")
    beats = _per_second(beat, 16, seconds)
    _print_rate("heartbeats one by one, 16 clients", beats, NEEDED_PER_SECOND)
    _print_rate(f"heartbeats in fleets of {BATCH}, 2 clients", _per_second(fleet, 2, seconds), NEEDED_PER_SECOND)
    stored = _per_second(store, 4, seconds)
    _print_rate(f"rows of the log, {BATCH} a batch, 4 clients", stored)
    before = _cpu_seconds(system)
    p50, p99 = _paced_ms(beat, NEEDED_PER_SECOND, seconds)
    count = NEEDED_PER_SECOND * seconds
    used = {name: (after - before[name]) / count * 1000 for name, after in _cpu_seconds(system).items()}
    print(f"a heartbeat at {NEEDED_PER_SECOND:.0f} a second: p50 {p50:.1f} ms, p99 {p99:.1f} ms", end="; ")
    print("CPU of each: " + ", ".join(f"{name} {milliseconds:.1f} ms" for name, milliseconds in used.items()))
    return beats >= NEEDED_PER_SECOND and stored >= TARGET_ROWS_PER_SECOND


def _cpu_seconds(system: DeviceSystem) -> dict[str, float]:
    return {name: cpu_seconds(system.pids[name]) for name in ("gateway", "cards")}


def _paced_ms(work: Work, rate: float, seconds: float) -> tuple[float, float]:
    """Do the work at an even pace, whatever the answers do; a late start counts as waiting. Returns: p50 and p99."""
    workers, times = 16, []
    begin = time.perf_counter() + 0.2

    def run(worker: int) -> None:
        rng = random.Random(worker)
        for number in itertools.count():
            due = begin + (number * workers + worker) / rate
            if due > begin + seconds:
                return
            time.sleep(max(due - time.perf_counter(), 0))
            work(rng)
            times.append((time.perf_counter() - due) * 1000)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, range(workers)))
    return median(times), sorted(times)[int(len(times) * 0.99) - 1]


if __name__ == "__main__":
    sys.exit(main())
