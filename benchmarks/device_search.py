"""Searches of a million rows of the device log and of the fleet, by the service's own queries. Used by `devices`."""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from benchmarks.device_system import DEVICES_PER_CARD, MERCHANTS, device_id
from services.cards.devices import log_queries, queries
from services.cards.devices.domain import HeartbeatRule
from shared.paging import encode_cursor
from shared.passport import Passport, service_passport
from shared.times import rfc3339, utc_now

DAYS = 60
RARE_WORD, COMMON_WORD = "quokka", "approved"
SECONDS_PER_SHAPE_MAX = 5.0
RUNS_MAX = 200
TARGET_P99_MS, TARGET_P99_KEYWORD_MS = 50.0, 100.0

_RULE = HeartbeatRule(interval_seconds=60, grace_seconds=120)
_ONE_ROW = sa.text("select * from device_logs where time = :time and seq = :seq")
_SOME_ROWS = sa.text("select time, seq from device_logs tablesample system (0.05) limit 500")

Run = Callable[[random.Random], Any]


def print_searches(engine: sa.Engine, *, devices: int) -> bool:
    """Measure each shape of search, print. Returns: whether all meet their targets."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("vacuum analyze")
    print(f"{'search of the log':52}{'p50 ms':>10}{'p99 ms':>10}{'rows':>8}{'runs':>8}")
    is_met = True
    with Session(engine) as session:
        known = session.execute(_SOME_ROWS).all()

        def one_row(rng: random.Random) -> list[Any]:
            row = rng.choice(known)
            return list(session.execute(_ONE_ROW, {"time": row.time, "seq": row.seq}))

        _print("floor: one row by its key", _times(one_row), None)
        for name, run, target_ms in _shapes(session, devices):
            is_met = _print(name, _times(run), target_ms) and is_met
    print()
    return is_met


def _shapes(session: Session, devices: int) -> list[tuple[str, Run, float]]:
    everyone = service_passport("benchmarks")
    some = replace(everyone, merchants=frozenset(f"mer_{n}" for n in range(10)))
    now = utc_now()

    def day(rng: random.Random) -> dict[str, str]:
        first = now - timedelta(days=rng.randrange(1, DAYS))
        return {"from_time": rfc3339(first), "to_time": rfc3339(first + timedelta(days=1))}

    def device(rng: random.Random) -> str:
        return device_id(rng.randrange(devices))

    def card(rng: random.Random) -> str:
        return f"car_{rng.randrange(devices // DEVICES_PER_CARD):026}"

    def deep(rng: random.Random) -> str:
        return encode_cursor([rfc3339(now - timedelta(days=rng.random() * DAYS)), 0])

    def of_log(arguments: Callable[[random.Random], dict[str, Any]], passport: Passport = everyone) -> Run:
        return lambda rng: log_queries.list_logs(session, passport, **arguments(rng))["items"]

    def of_fleet(arguments: dict[str, Any], passport: Passport = everyone) -> Run:
        return lambda _: queries.list_devices(session, passport, _RULE, **arguments)["items"]

    all_time = {"from_time": rfc3339(now - timedelta(days=DAYS + 1))}
    fast, by_word = TARGET_P99_MS, TARGET_P99_KEYWORD_MS
    return [
        ("newest page", of_log(lambda _: {}), fast),
        ("a page far down, by its cursor", of_log(lambda r: {"cursor": deep(r)}), fast),
        ("device", of_log(lambda r: {"device_id": device(r)}), fast),
        ("device and day", of_log(lambda r: {"device_id": device(r), **day(r)}), fast),
        ("card", of_log(lambda r: {"card_id": card(r)}), fast),
        ("action and day", of_log(lambda r: {"action": "login", **day(r)}), fast),
        ("result failure", of_log(lambda _: {"result": "failure"}), fast),
        ("payments that failed", of_log(lambda _: {"action": "payment", "result": "failure"}), fast),
        ("action and result that never were", of_log(lambda _: {"action": "config", "result": "failure"}), fast),
        ("merchant", of_log(lambda r: {"merchant_id": f"mer_{r.randrange(MERCHANTS)}"}), fast),
        ("keyword, rare, 30 days", of_log(lambda _: {"q": RARE_WORD}), by_word),
        ("keyword, rare, all time", of_log(lambda _: {"q": RARE_WORD, **all_time}), by_word),
        ("keyword, common, all time", of_log(lambda _: {"q": COMMON_WORD, **all_time}), by_word),
        ("keyword, absent, all time", of_log(lambda _: {"q": "wombat", **all_time}), by_word),
        ("10 of 50 merchants: newest page", of_log(lambda _: {}, some), fast),
        ("10 of 50 merchants: action and day", of_log(lambda r: {"action": "login", **day(r)}, some), fast),
        ("10 of 50 merchants: rare keyword, all time", of_log(lambda _: {"q": RARE_WORD, **all_time}, some), by_word),
        ("the fleet's newest page", of_fleet({}), fast),
        ("the fleet: who is online", of_fleet({"connected": "online"}), fast),
        ("the fleet: who is offline (nobody)", of_fleet({"connected": "offline"}), fast),
        ("the fleet of 10 of 50 merchants: late", of_fleet({"connected": "late"}, some), fast),
    ]


def _print(name: str, figure: tuple[float, float, int, int], target_ms: float | None) -> bool:
    is_met = target_ms is None or figure[1] <= target_ms
    missed = "" if is_met else f"   over {target_ms:.0f} ms"
    print(f"{name:52}{figure[0]:>10.2f}{figure[1]:>10.2f}{figure[2]:>8}{figure[3]:>8}{missed}")
    return is_met


def _times(run: Run) -> tuple[float, float, int, int]:
    """Return p50 and p99 in milliseconds, the rows found at last, and how many runs there were time for."""
    rng, seen, found = random.Random(11), [], []
    give_up_at = time.monotonic() + SECONDS_PER_SHAPE_MAX
    while len(seen) < 5 or (time.monotonic() < give_up_at and len(seen) < RUNS_MAX):
        started = time.perf_counter()
        found = run(rng)
        seen.append((time.perf_counter() - started) * 1000)
    p99 = sorted(seen)[int(len(seen) * 0.99) - 1]
    return statistics.median(seen), p99, len(found), len(seen)
