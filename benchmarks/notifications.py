"""From the ledger's event on the bus to Telegram's door, on an idle system, beside a bare call of the Bot API.

`DATABASE_URL=… AMQP_URL=… python -m benchmarks.notifications`; about a minute. Target: p99 at most 1 s.
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
from statistics import quantiles

import orjson
import requests
import sqlalchemy as sa

from benchmarks.probe_furniture import hear_all_events, own_database
from services.telegram.service import TelegramService
from shared.contracts.ledger import BalancesChanged, EntryView
from shared.link import OutgoingMessage
from shared.outbox import envelope_of
from shared.passport import service_passport
from shared.publishing import ConfirmedPublisher
from shared.rpc.wire import Call
from shared.times import rfc3339, utc_now
from shared.topology import EVENTS_EXCHANGE, declare_topology
from simulators.telegram import RunningSimulator, running_simulator

ROOT = Path(__file__).resolve().parents[1]
TARGET_P99_SECONDS = 1.0
PAUSE_SECONDS = 0.15  # an idle system: one event at a time, and below the pace that Telegram allows
WAIT_SECONDS_MAX = 30

_BIND = sa.text(
    """
    with bound as (
        insert into bindings (id, merchant_id, chat_id, title, language)
        select 'tgb_' || n, 'mer_' || n, -1000000000000 - n, 'Group', 'en' from generate_series(0, :count) n
        returning id, chat_id
    ), paced as (insert into pace (chat_id) select chat_id from bound)
    insert into large_change_rules (binding_id, enabled, threshold) select id, true, 1 from bound
    """
)


def main() -> int:
    """Measure and print. Returns: 0 where the target is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.notifications", description=__doc__)
    parser.add_argument("--events", type=int, default=200)
    count = parser.parse_args().events
    with running_simulator() as simulator, contextlib.ExitStack() as stack:
        floor = sorted(_bare_calls(simulator, count))
        simulator.reset()
        ours = sorted(_through_the_service(stack, simulator, count))
    for name, seconds in (("floor: a bare call", floor), ("event to door", ours)):
        print(
            f"{name:<20} p50 {_p(seconds, 50) * 1000:7.1f} ms   p99 {_p(seconds, 99) * 1000:7.1f} ms   n {len(seconds)}"
        )
    is_met = len(ours) == count and _p(ours, 99) <= TARGET_P99_SECONDS
    ratio = _p(ours, 50) / _p(floor, 50)
    print(
        f"ratio of the medians {ratio:.1f}; target p99 <= {TARGET_P99_SECONDS:.0f} s: {'met' if is_met else 'MISSED'}"
    )
    return 0 if is_met else 1


def _p(seconds: list[float], percent: int) -> float:
    return quantiles(seconds, n=100, method="inclusive")[percent - 1]


def _bare_calls(simulator: RunningSimulator, count: int) -> Iterator[float]:
    session = requests.Session()
    url = f"{simulator.url}/bot{simulator.token}/sendMessage"
    for _ in range(count):
        began = time.time()
        session.post(url, json={"chat_id": -1, "text": "x" * 200}, timeout=WAIT_SECONDS_MAX).raise_for_status()
        yield time.time() - began


def _through_the_service(stack: contextlib.ExitStack, simulator: RunningSimulator, count: int) -> Iterator[float]:
    database_url = stack.enter_context(own_database("telegram"))
    with sa.create_engine(database_url, poolclass=sa.NullPool).begin() as connection:
        connection.execute(_BIND, {"count": count})
    declare_topology(os.environ["AMQP_URL"], [TelegramService])
    hear_all_events(os.environ["AMQP_URL"])
    publisher = ConfirmedPublisher(os.environ["AMQP_URL"], name="benchmark")
    publisher.start()
    stack.callback(publisher.stop)
    stack.enter_context(_service(database_url, simulator))
    publisher.publish([_event(0)])  # once it has arrived, the service is up
    _wait_for(simulator, 1)
    published: dict[int, float] = {}
    for number in range(1, count + 1):
        message = _event(number)
        published[-1000000000000 - number] = time.time()
        publisher.publish([message])
        time.sleep(PAUSE_SECONDS)
    _wait_for(simulator, count + 1)
    for arrived in simulator.messages()[1:]:
        yield arrived["received_at"] - published[arrived["chat"]["id"]]


def _wait_for(simulator: RunningSimulator, messages: int) -> None:
    give_up_at = time.monotonic() + WAIT_SECONDS_MAX
    while len(simulator.messages()) < messages and time.monotonic() < give_up_at:
        time.sleep(0.1)


def _event(number: int) -> OutgoingMessage:
    entry: EntryView = {
        "entry_id": f"ent_{number}",
        "user_id": "u1",
        "holder_type": "user",
        "holder_id": "u1",
        "merchant_id": f"mer_{number}",
        "amount": "25000.00",
        "currency": "CNY",
        "order_no": f"R{number}",
        "balance": "25000.00",
        "version": 1,
        "type": 321,
        "type_name": "Recharge",
        "group": "Recharge/Withdrawal",
        "time": rfc3339(utc_now()),
        "operator": None,
        "channel": None,
        "note": None,
        "reason": None,
    }
    call = Call(service="ledger", method="post_balance_change", passport=service_passport("ledger"), arguments={})
    envelope = envelope_of(BalancesChanged(entries=[entry]), call)
    properties = {"message_id": envelope["event_id"]}
    key = BalancesChanged.routing_key()
    return OutgoingMessage(EVENTS_EXCHANGE, key, orjson.dumps(envelope), properties=properties)


@contextlib.contextmanager
def _service(database_url: str, simulator: RunningSimulator) -> Iterator[None]:
    """Run the telegram service as its own process."""
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    environment = {
        **os.environ,
        **dict.fromkeys(("PASSPORT_KEY", "PASSPORT_KEY_SETTINGS", "PASSPORT_KEY_USERS"), key),
        "SERVICE": "telegram",
        "DATABASE_URL": database_url,
        "LOG_LEVEL": "ERROR",
        "TELEGRAM_API_URL": simulator.url,
        "TELEGRAM_BOT_TOKEN": simulator.token,
    }
    command = [sys.executable, "-m", "shared.runner", "services.telegram.service:TelegramService"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    sys.exit(main())
