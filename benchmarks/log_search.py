"""Searches of a large log, by the service's own query, on rows that `generate_series` makes. Used by `logs`."""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.audit import queries
from shared.paging import encode_cursor
from shared.passport import Passport, service_passport
from shared.times import rfc3339, utc_now

DAYS = 60
USERS = 500
MERCHANTS = 200
SECONDS_PER_SHAPE_MAX = 6.0
RUNS_MAX = 200
TARGET_P99_MS, TARGET_P99_KEYWORD_MS = 50.0, 100.0

# One in 5 000 rows has the rare word; one in 20 is refused, one in 50 a change of data, one in 500 an error.
_FILL = """
insert into log_rows (seq, event_id, part, log_type, time, actor_id, actor_name, actor_type, action, resource_type,
    resource_id, order_no, merchant_id, service, event, ip, user_agent, request_id, outcome, status, duration_ms,
    message, reason, changes, details, prev_hash, hash)
select n, md5(n::text), 0,
    case when n % 500 = 0 then 'system_error' when n % 50 = 0 then 'data_change' when n % 2 = 0 then 'operation'
        else 'api_call' end,
    now() - make_interval(secs => (:rows - n) * :seconds_per_row),
    'usr_' || lpad((n * 7919 % :users)::text, 26, '0'), 'user-' || n * 7919 % :users, 'user',
    (array['cards', 'ledger', 'users', 'settings', 'tasks', 'telegram'])[1 + n * 31 % 6] || '.'
        || (array['list', 'get', 'create', 'update', 'close'])[1 + n * 17 % 5] || '_thing',
    'entry', 'ent_' || substr(md5('r' || n), 1, 26),
    case when n % 2 = 0 then 'R2026' || lpad((n * 104729 % 1000000000)::text, 12, '0') end,
    case when n % 2 = 0 then 'mer_' || n * 13 % :merchants end,
    (array['cards', 'ledger', 'users', 'settings', 'tasks', 'telegram'])[1 + n * 31 % 6], 'Something', '192.0.2.7',
    'Mozilla/5.0 (X11; Linux x86_64)', 'req_' || substr(md5('q' || n), 1, 26),
    case when n % 20 = 0 then 'denied' else 'success' end, 200, 12,
    'Recharge of user u' || n * 31 % 50000 || ': ' || n % 997 || '.50 CNY, balance ' || n * 7 % 99991 || '.00',
    case when n % 5000 = 0 then 'a quokka was here' when n % 10 = 0 then 'asked for by the merchant' end,
    null, json_build_object('amount', n % 997), decode(repeat('00', 32), 'hex'), sha256(n::text::bytea)
from generate_series(cast(:first as bigint), cast(:last as bigint)) n
"""
_INDEXES = """
select c.relname, pg_get_indexdef(c.oid) from pg_index i join pg_class c on c.oid = i.indexrelid
where i.indrelid = 'log_rows'::regclass and c.relname like 'ix_%'
"""

Arguments = Callable[[random.Random], dict[str, Any]]


def print_searches(url: str, rows: int) -> bool:
    """Fill a log, measure each shape of search, print. Returns: whether all meet their targets."""
    engine = sa.create_engine(url)
    seconds = _fill(engine, rows)
    print(f"search of {rows:,} rows over {DAYS} days, made in {seconds:.0f} s")
    print(f"{'':52}{'p50 ms':>10}{'p99 ms':>10}{'rows':>8}{'runs':>8}")
    is_met = True
    everyone = service_passport("benchmarks")
    some = replace(everyone, merchants=frozenset(f"mer_{n}" for n in range(20)), actor_id=_user_id(7))
    with Session(engine) as session:
        floor = _times(lambda _rng: session.execute(_ONE_ROW, {"seq": _rng.randrange(rows) + 1}).all())
        print(f"{'floor: one row by its key':52}{floor[0]:>10.2f}{floor[1]:>10.2f}{floor[2]:>8}{floor[3]:>8}")
        for name, passport, arguments, target_ms in _shapes(rows, everyone, some):
            figure = _times(_search(session, passport, arguments))
            is_met = is_met and figure[1] <= target_ms
            missed = "" if figure[1] <= target_ms else f"   over {target_ms:.0f} ms"
            print(f"{name:52}{figure[0]:>10.2f}{figure[1]:>10.2f}{figure[2]:>8}{figure[3]:>8}{missed}")
        for by in ("action", "hour"):
            figure = _times(lambda _rng, by=by: queries.log_stats(session, everyone, by=by)["items"])
            print(
                f"{f'counts of seven days by {by}':52}{figure[0]:>10.2f}{figure[1]:>10.2f}{figure[2]:>8}{figure[3]:>8}"
            )
    engine.dispose()
    return is_met


_ONE_ROW = sa.text("select * from log_rows where seq = :seq")


def _fill(engine: sa.Engine, rows: int) -> float:
    """Make the rows without their indexes and build those afterwards, as no rows ever come in life."""
    started = time.monotonic()
    values = {"rows": rows, "users": USERS, "merchants": MERCHANTS, "seconds_per_row": DAYS * 86400 / rows}
    with engine.begin() as connection:
        for day in range(0, DAYS + 31, 15):
            month = sa.text("select make_log_partition(cast(now() - make_interval(days => :day) as date))")
            connection.execute(month, {"day": day})
        indexes = connection.execute(sa.text(_INDEXES)).all()
        for name, _ in indexes:
            connection.exec_driver_sql(f"drop index {name}")
        for first in range(1, rows + 1, 250_000):
            connection.execute(sa.text(_FILL), values | {"first": first, "last": min(rows, first + 249_999)})
        for _, definition in indexes:
            connection.exec_driver_sql(definition.replace(" ON ONLY ", " ON "))
        connection.execute(sa.text("update chain_state set last_seq = :rows"), {"rows": rows})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("vacuum analyze log_rows")
    return time.monotonic() - started


def _user_id(number: int) -> str:
    return f"usr_{number:026}"


def _shapes(rows: int, everyone: Passport, some: Passport) -> list[tuple[str, Passport, Arguments, float]]:
    now = utc_now()

    def user(rng: random.Random) -> str:
        return _user_id(rng.randrange(USERS))

    def day(rng: random.Random) -> dict[str, str]:
        first = now - timedelta(days=rng.randrange(1, DAYS))
        return {"from_time": rfc3339(first), "to_time": rfc3339(first + timedelta(days=1))}

    def number(rng: random.Random) -> int:
        return 2 * rng.randrange(1, rows // 2)

    def deep(rng: random.Random) -> str:
        return encode_cursor([rfc3339(now - timedelta(days=rng.random() * 6)), rows])

    month = {"from_time": rfc3339(now - timedelta(days=30))}
    all_time = {"from_time": rfc3339(now - timedelta(days=DAYS))}
    fast, by_word = TARGET_P99_MS, TARGET_P99_KEYWORD_MS
    return [
        ("newest page", everyone, lambda _: {}, fast),
        ("a page far down, by its cursor", everyone, lambda r: {"cursor": deep(r)}, fast),
        ("user", everyone, lambda r: {"user": user(r)}, fast),
        ("user and day", everyone, lambda r: {"user": user(r), **day(r)}, fast),
        ("type and day", everyone, lambda r: {"log_type": "data_change", **day(r)}, fast),
        ("user, type, 30 days", everyone, lambda r: {"user": user(r), "log_type": "api_call", **month}, fast),
        ("action", everyone, lambda _: {"action": "cards.close_thing"}, fast),
        ("action's prefix and day", everyone, lambda r: {"action": "cards.*", **day(r)}, fast),
        ("merchant", everyone, lambda r: {"merchant_id": f"mer_{r.randrange(MERCHANTS)}"}, fast),
        ("outcome denied", everyone, lambda _: {"outcome": "denied"}, fast),
        ("request id", everyone, lambda _: {"request_id": "req_" + "0" * 26}, fast),
        ("keyword: an order number", everyone, lambda r: {"q": f"R2026{number(r) * 104729 % 10**9:012}"}, fast),
        ("keyword, rare, 7 days", everyone, lambda _: {"q": "quokka"}, by_word),
        ("keyword, rare, 60 days", everyone, lambda _: {"q": "quokka", **all_time}, by_word),
        (
            "keyword, a user's number, 60 days",
            everyone,
            lambda r: {"q": f"u{r.randrange(50000)}:", **all_time},
            by_word,
        ),
        ("keyword, common, 7 days", everyone, lambda _: {"q": "asked for"}, by_word),
        ("keyword, common, 60 days", everyone, lambda _: {"q": "Recharge", **all_time}, by_word),
        ("keyword, absent, 60 days", everyone, lambda _: {"q": "wombat", **all_time}, by_word),
        ("20 of 200 merchants: newest page", some, lambda _: {}, fast),
        ("20 of 200 merchants: user and 30 days", some, lambda r: {"user": user(r), **month}, fast),
        ("20 of 200 merchants: rare keyword, 60 days", some, lambda _: {"q": "quokka", **all_time}, by_word),
    ]


def _search(session: Session, passport: Passport, arguments: Arguments) -> Callable[[random.Random], list[Any]]:
    def run(rng: random.Random) -> list[Any]:
        return queries.list_logs(session, passport, limit=50, **arguments(rng))["items"]

    return run


def _times(run: Callable[[random.Random], Any]) -> tuple[float, float, int, int]:
    """Return p50 and p99 in milliseconds, the rows found at last, and how many runs there were time for."""
    rng, seen, found = random.Random(11), [], []
    give_up_at = time.monotonic() + SECONDS_PER_SHAPE_MAX
    while len(seen) < 5 or (time.monotonic() < give_up_at and len(seen) < RUNS_MAX):
        started = time.perf_counter()
        found = run(rng)
        seen.append((time.perf_counter() - started) * 1000)
    return (
        statistics.median(seen),
        sorted(seen)[int(len(seen) * 0.99) - 1 if len(seen) > 1 else 0],
        len(found),
        len(seen),
    )
