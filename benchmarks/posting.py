"""Posting, the whole way through HTTP, bus and PostgreSQL, against floors that are measured in the same run.

`DATABASE_URL=… AMQP_URL=… python -m benchmarks.posting`; the addresses are those of servers where databases may be
made and of a virtual host that nothing else uses. Takes about two minutes. Needs wrk (`apt-get install wrk`).
"""

import argparse
import http.client
import itertools
import random
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson
import sqlalchemy as sa
from sqlalchemy.orm import Session

from benchmarks.ledger_floor import ACCOUNTS, post_many_per_second
from benchmarks.ledger_system import MERCHANT, LedgerSystem, ledger_system
from services.ledger.verification import prove
from shared.money import format_minor

BATCH = 10_000
BODIES = 6
CLIENTS = 64
# Out of FEATURES.md's types, so that each batch has what a day has.
TYPES = ((321, 1), (321, 1), (325, 1), (323, -1), (331, -1), (332, -1), (324, 1), (231, 0))


@dataclass(frozen=True)
class Figure:
    """What one round saw."""

    per_second: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    failed: int = 0


def main() -> int:
    """Measure, and print ours, the floor, the ratio. Returns: 1 when anything failed or the ledger is not proved."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4, help="of each round of each load")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        print("This needs wrk: apt-get install wrk", file=sys.stderr)
        return 2
    with ledger_system() as system:
        failed = _batches(system, options.seconds, options.rounds)
        failed += _singles(system, options.seconds, options.rounds)
        return 1 if failed + _unproved(system.engine) else 0


def _batches(system: LedgerSystem, seconds: float, rounds: int) -> int:
    rng = random.Random(7)
    raws = [_changes(rng, BATCH) for _ in range(BODIES)]
    floors = [_arrays(changes) for changes in raws]
    bodies = [orjson.dumps({"changes": changes, "atomic": False}) for changes in raws]
    _post_batches(system, bodies, clients=1, seconds=0.1)  # opens the accounts
    seen: dict[int, list[Figure]] = {0: [], 1: [], 2: [], 4: []}
    for _ in range(rounds):
        for clients, figures in seen.items():
            if clients == 0:
                figures.append(Figure(post_many_per_second(system.engine, floors, seconds=seconds)))
            else:
                figures.append(_post_batches(system, bodies, clients=clients, seconds=seconds))
    print(f"batches of {BATCH}, medians of {rounds} rounds of {seconds:.0f} s\n")
    print(f"{'':44}{'entries/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'of floor':>10}{'failed':>8}")
    floor = _median(seen[0])
    _row("arrays in one SQL function, one connection", seen[0], None)
    for clients in (1, 2, 4):
        _row(f"POST /balance-changes/batch, {clients} client{'s'[: clients - 1]}", seen[clients], floor)
    return sum(figure.failed for figures in seen.values() for figure in figures)


def _changes(rng: random.Random, count: int) -> list[dict[str, Any]]:
    changes = []
    for n in range(count):
        code, sign = rng.choice(TYPES)
        minor = sign * rng.randint(1, 9_999)
        change: dict[str, Any] = {
            "merchant_id": MERCHANT,
            "user_id": f"user-{_account(rng)}",
            "type": code,
            "amount": format_minor(minor, "CNY"),
            "currency": "CNY",
        }
        if code != 231:
            change["order_no"] = f"P{rng.randrange(10**15)}{n:05}"
        if code == 321:
            change["channel"] = "alipay"
        changes.append(change)
    return changes


def _account(rng: random.Random) -> int:
    return min(int(rng.paretovariate(0.3)) - 1, ACCOUNTS - 1) if rng.random() < 0.5 else rng.randrange(ACCOUNTS)


def _arrays(changes: list[dict[str, Any]]) -> tuple[list[int], list[int], list[str]]:
    return (
        [int(change["user_id"].removeprefix("user-")) for change in changes],
        [int(change["amount"].replace(".", "")) for change in changes],
        [change.get("order_no", "") for change in changes],
    )


def _post_batches(system: LedgerSystem, bodies: list[bytes], *, clients: int, seconds: float) -> Figure:
    times: list[float] = []
    failed: list[bytes] = []
    started = time.perf_counter()

    def post(offset: int) -> None:
        connection = _connection(system.url)
        for n in itertools.count(offset):
            if time.perf_counter() - started > seconds:
                return
            begun = time.perf_counter()
            status, text = _send(connection, system, "/balance-changes/batch", bodies[n % len(bodies)])
            times.append(time.perf_counter() - begun)
            if status != 200:
                failed.append(text)

    threads = [threading.Thread(target=post, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        print(failed[0][:300], file=sys.stderr)
    elapsed = time.perf_counter() - started
    return Figure(len(times) * BATCH / elapsed, *_percentiles(times), failed=len(failed))


def _connection(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)


def _send(connection: http.client.HTTPConnection, system: LedgerSystem, path: str, body: bytes) -> tuple[int, bytes]:
    headers = {
        "Authorization": f"Bearer {system.token}",
        "Content-Type": "application/json",
        "Idempotency-Key": secrets.token_hex(12),
    }
    connection.request("POST", f"{urlsplit(system.url).path}{path}", body, headers)
    response = connection.getresponse()
    return response.status, response.read()


def _percentiles(times: list[float]) -> tuple[float, float]:
    ordered = sorted(times)
    return ordered[len(ordered) // 2] * 1000, ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)] * 1000


def _singles(system: LedgerSystem, seconds: float, rounds: int) -> int:
    loads = {
        "Flask + psycopg, one SQL function": (f"{system.floor_url}/balance-changes", f"math.random({ACCOUNTS - 1})"),
        "POST /balance-changes, many accounts": (f"{system.url}/balance-changes", f"math.random({ACCOUNTS - 1})"),
        "POST /balance-changes, one hot account": (f"{system.url}/balance-changes", "0"),
    }
    seen: dict[str, list[Figure]] = {name: [] for name in loads}
    for _ in range(rounds):
        for name, (url, account) in loads.items():
            seen[name].append(_wrk(url, system.token, account, seconds))
    print(f"\nsingle changes, {CLIENTS} clients, medians of {rounds} rounds of {seconds:.0f} s\n")
    print(f"{'':44}{'entries/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'of floor':>10}{'failed':>8}")
    floor, many, hot = seen.values()
    for name, figures in seen.items():
        _row(name, figures, None if figures is floor else _median(floor))
    print(f"\na hot account against many: {_median(hot) / _median(many):.2f}")
    rate = _median(many) / 2
    paced = _paced(system, rate, seconds)
    print(f"at {rate:.0f} a second, half of that: p50 {paced.p50_ms:.1f} ms, p99 {paced.p99_ms:.1f} ms\n")
    return sum(figure.failed for figures in seen.values() for figure in figures) + paced.failed


def _row(name: str, figures: list[Figure], floor: float | None) -> None:
    p50, p99 = (statistics.median(getattr(f, which) for f in figures) for which in ("p50_ms", "p99_ms"))
    ratio = f"{_median(figures) / floor:.2f}" if floor else ""
    failed = sum(figure.failed for figure in figures)
    print(f"{name:44}{_median(figures):>10.0f}{p50:>9.1f}{p99:>9.1f}{ratio:>10}{failed:>8}")


def _median(figures: list[Figure]) -> float:
    return statistics.median(figure.per_second for figure in figures)


def _wrk(url: str, token: str, account: str, seconds: float) -> Figure:
    script = f"""
n = 0
math.randomseed({secrets.randbelow(10**6)})
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {token}"
request = function()
  n = n + 1
  wrk.headers["Idempotency-Key"] = "{secrets.token_hex(8)}-" .. n
  local body = string.format('{{"merchant_id":"{MERCHANT}","user_id":"user-%d","type":321,"amount":"1.25",'
    .. '"currency":"CNY","order_no":"{secrets.token_hex(6)}%d","channel":"alipay"}}', {account}, n)
  return wrk.format("POST", nil, nil, body)
end
"""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{max(int(seconds), 1)}s", "--latency", "--timeout", "15s"]
        out = subprocess.run(
            [*command, "-s", file.name, url], capture_output=True, text=True, timeout=seconds + 60, check=True
        ).stdout
    per_second = re.search(r"Requests/sec:\s+([\d.]+)", out)
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    failed = int(wrong[1] if wrong else 0) + sum(map(int, broken.groups() if broken else ()))
    p50, p99 = (_milliseconds(out, percentile) for percentile in ("50", "99"))
    return Figure(float(per_second[1]) if per_second else 0.0, p50, p99, failed)


def _milliseconds(out: str, percentile: str) -> float:
    found = re.search(rf"{percentile}%\s+([\d.]+)(us|ms|s)", out)
    return float(found[1]) * {"us": 0.001, "ms": 1, "s": 1000}[found[2]] if found else float("nan")


def _paced(system: LedgerSystem, rate: float, seconds: float) -> Figure:
    """Post at an even pace, whatever the answers do; a late start counts as waiting."""
    workers, times, failed = 32, [], []
    begin = time.perf_counter() + 0.2

    def post(worker: int) -> None:
        connection = _connection(system.url)
        for n in itertools.count():
            due = begin + (n * workers + worker) / rate
            if due > begin + seconds:
                return
            time.sleep(max(due - time.perf_counter(), 0))
            body = {
                "merchant_id": MERCHANT, "user_id": f"user-{secrets.randbelow(ACCOUNTS)}", "type": 321,
                "amount": "1.25", "currency": "CNY", "order_no": secrets.token_hex(8), "channel": "alipay",
            }  # fmt: skip
            status, _ = _send(connection, system, "/balance-changes", orjson.dumps(body))
            times.append(time.perf_counter() - due)
            if status != 201:
                failed.append(status)

    threads = [threading.Thread(target=post, args=(n,)) for n in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Figure(rate, *_percentiles(times), failed=len(failed))


def _unproved(engine: sa.Engine) -> int:
    with Session(engine) as session:
        session.execute(sa.text("set transaction isolation level repeatable read"))
        view = prove(session, mode="full")
    print(f"proved: {view['entries']} entries of {view['accounts']} accounts, {view['fault_count']} faults")
    return view["fault_count"]


if __name__ == "__main__":
    sys.exit(main())
