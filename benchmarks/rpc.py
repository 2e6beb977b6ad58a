"""A call through the shared kernel (sealed, passport, deadline, idempotency key) against raw py-amqp, in one run.

`DATABASE_URL=… AMQP_URL=… python -m benchmarks.rpc`; about a minute. Target: at least 0.6 of raw at 16 callers.
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()  # as in the gateway, whose client this is

import argparse
import base64
import json
import os
import secrets
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import amqp
import sqlalchemy as sa

from benchmarks.probe_furniture import own_database
from benchmarks.rpc_service import RpcProbeService
from shared.kernel_tables import metadata
from shared.passport import service_passport
from shared.rpc.client import RpcClient
from shared.topology import declare_topology

ROOT = Path(__file__).resolve().parents[1]
RAW_QUEUE = "benchmark.raw"
CALLERS = (1, 16, 64)


def raw_connection() -> amqp.Connection:
    """Return a plain py-amqp connection to the broker of AMQP_URL."""
    url = urlsplit(os.environ["AMQP_URL"])
    connection = amqp.Connection(
        f"{url.hostname}:{url.port}", unquote(url.username or ""), unquote(url.password or ""),
        virtual_host=unquote(url.path[1:]) or "/",
    )  # fmt: skip
    connection.connect()
    return connection


def serve_raw() -> None:
    """Answer each message with what it held: the floor's server."""
    channel = raw_connection().channel()
    channel.queue_declare(RAW_QUEUE, auto_delete=True)
    channel.basic_qos(0, 50, False)

    def answer(message: amqp.Message) -> None:
        body = json.dumps({"result": json.loads(message.body)["args"], "error": None})
        reply = amqp.Message(body, correlation_id=message.correlation_id, delivery_mode=1)
        channel.basic_publish(reply, exchange="", routing_key=message.reply_to)
        channel.basic_ack(message.delivery_tag)

    channel.basic_consume(RAW_QUEUE, callback=answer)
    print("ready", flush=True)
    while True:
        channel.connection.drain_events()


class RawClient:
    """The floor's client: one loop that keeps so many messages in flight."""

    def __init__(self) -> None:
        self._connection = raw_connection()
        self._channel = self._connection.channel()
        self._replies = self._channel.queue_declare("", exclusive=True).queue
        self._channel.basic_consume(self._replies, callback=self._on_reply, no_ack=True)
        self._answered = 0
        self._in_flight = 0
        self._give_up_at = 0.0

    def per_second(self, callers: int, seconds: float) -> float:
        """Return the calls a second with so many in flight."""
        started, self._answered = time.perf_counter(), 0
        self._give_up_at = started + seconds
        for _ in range(callers):
            self._send()
        while self._in_flight:
            self._connection.drain_events(timeout=5)
        return self._answered / (time.perf_counter() - started)

    def _send(self) -> None:
        self._in_flight += 1
        message = amqp.Message(
            json.dumps({"args": [1], "kwargs": {}}), correlation_id="1", reply_to=self._replies, delivery_mode=1
        )
        self._channel.basic_publish(message, exchange="", routing_key=RAW_QUEUE)

    def _on_reply(self, message: amqp.Message) -> None:
        json.loads(message.body)
        self._answered += 1
        self._in_flight -= 1
        if time.perf_counter() < self._give_up_at:
            self._send()


def kernel_per_second(call: Callable[[], object], callers: int, seconds: float) -> float:
    """Return the calls a second that so many greenlets make."""
    answered, give_up_at = 0, time.perf_counter() + seconds

    def work() -> None:
        nonlocal answered
        while time.perf_counter() < give_up_at:
            call()
            answered += 1

    started = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answered / (time.perf_counter() - started)


@contextmanager
def processes() -> Iterator[RpcClient]:
    """Run both servers. Gives: a client of ours."""
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    with own_database() as url:
        metadata.create_all(sa.create_engine(url, poolclass=sa.NullPool))
        declare_topology(os.environ["AMQP_URL"], [RpcProbeService])
        with _servers(url, key) as client:
            yield client


@contextmanager
def _servers(url: str, key: str) -> Iterator[RpcClient]:
    environment = {
        **os.environ, "SERVICE": RpcProbeService.name, "DATABASE_URL": url, "PASSPORT_KEY": key, "LOG_LEVEL": "WARNING",
    }  # fmt: skip
    ours = subprocess.Popen(
        [sys.executable, "-m", "shared.runner", "benchmarks.rpc_service:RpcProbeService"], cwd=ROOT, env=environment
    )
    raw = subprocess.Popen([sys.executable, "-m", "benchmarks.rpc", "--serve-raw"], cwd=ROOT, stdout=subprocess.PIPE)
    assert raw.stdout is not None
    raw.stdout.readline()
    client = RpcClient(os.environ["AMQP_URL"], {RpcProbeService.name: base64.b64decode(key)}, name="benchmark").start()
    try:
        client.call(RpcProbeService.name, "ping", passport=service_passport("benchmark"), timeout=20)
        yield client
    finally:
        client.stop()
        for process in (ours, raw):
            process.terminate()
            process.wait(30)


def main() -> None:
    """Measure rounds of both, interleaved, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve-raw", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_raw:
        serve_raw()
    passport = service_passport("benchmark", request_id="req_benchmark")
    with processes() as client:

        def noop() -> object:
            return client.call(RpcProbeService.name, "noop", passport=passport)

        def command() -> object:
            key = secrets.token_hex(8)
            return client.call(RpcProbeService.name, "noop_command", passport=passport, idempotency_key=key)

        raw = RawClient()
        print(f"medians of {options.rounds} rounds of {options.seconds:.0f} s, calls a second\n")
        print(f"{'callers':>8}{'raw py-amqp':>13}{'kernel':>9}{'ratio':>7}{'command + key':>15}{'ratio':>7}")
        for callers in CALLERS:
            figures = [
                (
                    raw.per_second(callers, options.seconds),
                    kernel_per_second(noop, callers, options.seconds),
                    kernel_per_second(command, callers, options.seconds),
                )
                for _ in range(options.rounds)
            ]
            floor, ours, with_key = (statistics.median(column) for column in zip(*figures, strict=True))
            print(f"{callers:8}{floor:13.0f}{ours:9.0f}{ours / floor:7.2f}{with_key:15.0f}{with_key / floor:7.2f}")


if __name__ == "__main__":
    main()
