"""The log: events from the bus to searchable rows, and searches of many rows, beside floors of the same run.

`DATABASE_URL=… AMQP_URL=… python -m benchmarks.logs [--rows 1000000]`; the addresses are those of a server where
databases may be made and of a virtual host that nothing else uses. About three minutes for a million rows.
Targets: 5 000 rows/s sustained; a lag of 5 s at most at 1 000 rows/s; a search's p99 50 ms, of a rare keyword 100 ms.
"""

import argparse
import base64
import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.orm import Session

from benchmarks.log_search import print_searches
from benchmarks.probe_furniture import own_database
from services.audit import usecases
from services.audit.domain.chain import GENESIS, Head, Link, seal
from services.audit.domain.rows import contents_of
from services.audit.models import COLUMNS, copied_row
from services.audit.service import AuditService
from services.audit.verification import verify_chain
from shared.events import Envelope
from shared.link import OutgoingMessage
from shared.passport import service_passport
from shared.publishing import ConfirmedPublisher
from shared.times import rfc3339, utc_now
from shared.topology import EVENTS_EXCHANGE, declare_topology

ROOT = Path(__file__).resolve().parents[1]
BATCH = 500
WAIT_SECONDS_MAX = 60
TARGET_ROWS_PER_SECOND = 5_000
TARGET_LAG_SECONDS = 5.0


def main() -> int:
    """Measure and print. Returns: 0 where the targets are met and the chain holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the log that is searched")
    parser.add_argument("--events", type=int, default=30_000, help="that go over the bus as fast as they can")
    parser.add_argument("--only", choices=("ingestion", "search"), help="leave the other half out")
    parser.add_argument("--seconds", type=int, default=15, help="of a steady thousand events a second")
    options = parser.parse_args()
    is_met = True
    if options.only != "search":
        with contextlib.ExitStack() as stack:
            is_met = _print_ingestion(stack, options.events, options.seconds)
    if options.only != "ingestion":
        with own_database("audit") as url:
            is_met = print_searches(url, options.rows) and is_met
    return 0 if is_met else 1


def _print_ingestion(stack: contextlib.ExitStack, events: int, seconds: int) -> bool:
    url = stack.enter_context(own_database("audit"))
    engine = sa.create_engine(url)
    stack.callback(engine.dispose)
    floor = _copy_rows_per_second(engine, 20_000)
    calls = _record_rows_per_second(engine, [[_api_call() for _ in range(BATCH)] for _ in range(40)])
    posted = _record_rows_per_second(engine, [[_balances_changed(500) for _ in range(20)] for _ in range(3)])
    with _audit_on_the_bus(url) as publisher:
        from_bus = _bus_rows_per_second(engine, publisher, events)
        lag_seconds = _lag_seconds_max(engine, publisher, seconds)
    checked_per_second, is_whole = _check(engine)
    print(f"{'log ingestion':52}{'rows/s':>10}{'of floor':>10}")
    for name, rows_per_second in (
        ("floor: COPY of 500 into a table without an index", floor),
        ("record_events, calls of the API, 500 a batch", calls),
        ("record_events, balance changes, 20 events of 500", posted),
        ("event on the bus to searchable row, calls", from_bus),
        ("verify_chain", checked_per_second),
    ):
        print(f"{name:52}{rows_per_second:>10,.0f}{rows_per_second / floor:>10.2f}")
    print(f"lag at 1 000 events/s for {seconds} s: {lag_seconds:.2f} s at most")
    print(f"the chain of all these rows {'holds' if is_whole else 'is BROKEN'}\n")
    return is_whole and from_bus >= TARGET_ROWS_PER_SECOND and lag_seconds <= TARGET_LAG_SECONDS


def _envelope(event: str, service: str, payload: dict[str, Any], **fields: Any) -> Envelope:
    user = secrets.randbelow(200)
    made: dict[str, Any] = {
        "event_id": secrets.token_hex(16),
        "event": event,
        "service": service,
        "occurred_at": rfc3339(utc_now()),
        "request_id": f"req_{secrets.token_hex(13)}",
        "actor": {"id": f"usr_{user:026}", "name": f"user-{user}", "type": "user"},
        "ip": "192.0.2.7",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0",
        "payload": payload,
    }
    return made | fields  # type: ignore[return-value]  # a subset of the keys is what TypedDict cannot say


def _api_call() -> Envelope:
    card_id = f"car_{secrets.token_hex(13)}"
    payload = {
        "method": "GET",
        "route": "/api/v1/cards/{card_id}",
        "path": f"/api/v1/cards/{card_id}",
        "status": 200,
        "duration_ms": 12.5,
        "outcome": "success",
        "code": None,
    }
    said = {"action": "cards.get_card", "resource_type": "card", "resource_id": card_id, "merchant_id": None}
    return _envelope("ApiCalled", "gateway", payload, **said)


def _balances_changed(entries: int) -> Envelope:
    said = {"action": "ledger.post_changes", "resource_type": "entry", "resource_id": "", "merchant_id": None}
    return _envelope("BalancesChanged", "ledger", {"entries": [_entry(n) for n in range(entries)]}, **said)


def _entry(number: int) -> dict[str, Any]:
    user_id = f"user-{secrets.randbelow(10_000)}"
    return {
        "entry_id": f"ent_{secrets.token_hex(13)}",
        "user_id": user_id,
        "holder_type": "user",
        "holder_id": user_id,
        "merchant_id": f"mer_{number % 50}",
        "amount": f"{secrets.randbelow(10_000)}.50",
        "currency": "CNY",
        "order_no": f"R2026{secrets.randbelow(10**12):012}",
        "balance": f"{secrets.randbelow(1_000_000)}.00",
        "version": number,
        "type": 321,
        "type_name": "Recharge",
        "group": "Recharge/Withdrawal",
        "time": rfc3339(utc_now()),
        "operator": None,
        "channel": "alipay",
        "note": None,
        "reason": None,
    }


def _copy_rows_per_second(engine: sa.Engine, rows: int) -> float:
    """Return how fast COPY alone takes rows that are sealed already, into a table with no index and no constraint."""
    links = seal(Head(0, GENESIS), [content for _ in range(rows) for content in contents_of(_api_call())])
    with engine.begin() as connection:
        connection.exec_driver_sql("create table bare (like log_rows)")
    started = time.perf_counter()
    for start in range(0, rows, BATCH):
        with engine.begin() as connection:
            _copy(connection, links[start : start + BATCH])
    return rows / (time.perf_counter() - started)


def _copy(connection: sa.Connection, links: list[Link]) -> None:
    driver: Any = connection.connection.driver_connection
    columns = ", ".join(COLUMNS)
    with driver.cursor() as cursor, cursor.copy(f"copy bare (search_text, {columns}) from stdin") as copy:
        for link in links:
            copy.write_row((link.content["message"], *copied_row(link)))


def _record_rows_per_second(engine: sa.Engine, batches: list[list[Envelope]]) -> float:
    started, rows = time.perf_counter(), 0
    for batch in batches:
        with Session(engine) as session, session.begin():
            rows += usecases.record_events(session, batch)
    return rows / (time.perf_counter() - started)


@contextlib.contextmanager
def _audit_on_the_bus(database_url: str) -> Iterator[ConfirmedPublisher]:
    """Run the audit service as a process, and give a publisher of events."""
    amqp_url = os.environ["AMQP_URL"]
    declare_topology(amqp_url, [AuditService])
    environment = {
        **os.environ,
        "SERVICE": "audit",
        "DATABASE_URL": database_url,
        "PASSPORT_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
        "LOG_LEVEL": "WARNING",
    }
    command = [sys.executable, "-m", "shared.runner", "services.audit.service:AuditService"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    publisher = ConfirmedPublisher(amqp_url, name="benchmarks.logs")
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.stop()
        process.terminate()
        process.wait(40)


def _publish(publisher: ConfirmedPublisher, envelopes: list[Envelope]) -> None:
    publisher.publish(
        OutgoingMessage(
            exchange=EVENTS_EXCHANGE,
            routing_key=f"{envelope['service']}.{envelope['event']}",
            body=orjson.dumps(envelope),
            properties={"message_id": envelope["event_id"]},
        )
        for envelope in envelopes
    )


def _bus_rows_per_second(engine: sa.Engine, publisher: ConfirmedPublisher, events: int) -> float:
    """Return how fast events that wait in the queue become rows, from the first row to the last."""
    _publish(publisher, [_api_call() for _ in range(10)])
    before = _await_rows(engine, _row_count(engine) + 10)  # the service is up
    started = time.perf_counter()
    for _ in range(events // BATCH):
        _publish(publisher, [_api_call() for _ in range(BATCH)])
    _await_rows(engine, before + events)
    return events / (time.perf_counter() - started)


def _lag_seconds_max(engine: sa.Engine, publisher: ConfirmedPublisher, seconds: int) -> float:
    """Return the longest that an event took to its row, at a thousand a second, looked at twice a second."""
    rows, lags = _row_count(engine), [0.0]
    started = time.monotonic()
    for tick in range(seconds * 10):
        _publish(publisher, [_api_call() for _ in range(100)])
        if tick % 5 == 4:
            missing = rows + (tick + 1) * 100 - _row_count(engine)
            lags.append(missing / 1_000)
        time.sleep(max(0.0, started + (tick + 1) / 10 - time.monotonic()))
    _await_rows(engine, rows + seconds * 1_000)
    return max(*lags, time.monotonic() - started - seconds)


def _row_count(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(sa.text("select last_seq from chain_state")).scalar_one())


def _await_rows(engine: sa.Engine, count: int) -> int:
    give_up_at = time.monotonic() + WAIT_SECONDS_MAX
    while (rows := _row_count(engine)) < count:
        if time.monotonic() > give_up_at:
            raise SystemExit(f"{count - rows} rows did not come in {WAIT_SECONDS_MAX} s")
        time.sleep(0.02)
    return rows


def _check(engine: sa.Engine) -> tuple[float, bool]:
    started, checked, is_whole, seq = time.perf_counter(), 0, True, None
    with Session(engine) as session:
        while True:
            report = verify_chain(session, service_passport("benchmarks"), from_seq=seq)
            checked, is_whole, seq = checked + report["checked"], is_whole and report["ok"], report["next_seq"]
            if seq is None:
                return checked / (time.perf_counter() - started), is_whole


if __name__ == "__main__":
    sys.exit(main())
