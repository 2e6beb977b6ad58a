"""HTTP through the gateway and the bus, against the same work by Flask and psycopg alone, in the same run.

`DATABASE_URL=… AMQP_URL=… python -m benchmarks.gateway`; the addresses are those of servers where databases may be
made and of a virtual host that nothing else uses. Takes about two minutes. Needs wrk (`apt-get install wrk`).
"""

import argparse
import base64
import contextlib
import os
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.gateway_probe import TABLE
from benchmarks.gateway_service import ProbeService
from benchmarks.probe_furniture import (
    SERVICES,
    cpu_seconds,
    free_port,
    own_database,
    own_process,
    probe_token,
    wait_answered,
)
from shared.kernel_tables import metadata
from shared.topology import declare_topology

ROOT = Path(__file__).resolve().parents[1]
WORKER_CLASSES = {"gevent": "gateway.worker.DrainingWorker", "gthread": "gthread"}


@dataclass(frozen=True)
class Load:
    """One thing to measure: what is asked, of whom."""

    name: str
    url: str
    pid: int
    service_pid: int = 0
    method: str = "GET"
    token: str = ""
    has_key: bool = False


@dataclass(frozen=True)
class Figure:
    """What one round of wrk saw."""

    per_second: float
    p50_ms: float
    p99_ms: float
    failures: int
    cpu_us: float = 0.0
    service_cpu_us: float = 0.0


@dataclass(frozen=True)
class Server:
    """A process that answers HTTP."""

    url: str
    pid: int


def main() -> int:
    """Measure, and print ours, the floor, the ratio. Returns: 1 when anything was answered wrongly."""
    options = _options()
    if shutil.which("wrk") is None:
        print("This needs wrk: apt-get install wrk", file=sys.stderr)
        return 2
    print(
        f"{options.seconds} s a round, {options.rounds} rounds interleaved, medians; wrk -t1. CPU: least of the rounds,"
    )
    print("CPU: µs a request, of the HTTP process and of the service behind it, the least of the rounds.\n")
    print(f"{'':44}{'c':>4}{'req/s':>8}{'p50 ms':>8}{'p99 ms':>8}{'of floor':>9}{'CPU':>6}{'service':>9}{'failed':>7}")
    failures = 0
    with _processes(options.workers.split(",")) as pairs:
        for clients in map(int, options.clients.split(",")):
            failures += _compare(pairs, clients, options.seconds, options.rounds)
    return 1 if failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4, help="of each round of each load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", default="16,64", help="connections at once")
    parser.add_argument("--workers", default="gevent", help="gevent, gthread, or both with a comma")
    return parser.parse_args()


def _loads(worker_class: str, ours: "Server", floor: "Server", service_pid: int, token: str) -> list[tuple[Load, Load]]:
    """Return pairs of a floor and what is measured against it."""
    kind = f"[{worker_class}]"
    noop = Load(f"Flask alone, no-op {kind}", f"{floor.url}/noop", floor.pid)
    insert = Load(f"Flask + psycopg, insert {kind}", f"{floor.url}/insert", floor.pid, method="POST")
    through = {"pid": ours.pid, "service_pid": service_pid, "token": token}
    return [
        (noop, Load(f"gateway, bus, no-op {kind}", f"{ours.url}/noop", **through)),
        (insert, Load(f"gateway, bus, insert {kind}", f"{ours.url}/insert", method="POST", **through)),
        (insert, Load(f"the same with a key {kind}", f"{ours.url}/insert", method="POST", has_key=True, **through)),
    ]


def _compare(pairs: list[tuple[Load, Load]], clients: int, seconds: int, rounds: int) -> int:
    loads = list(dict.fromkeys(load for pair in pairs for load in pair))
    seen: dict[Load, list[Figure]] = {load: [] for load in loads}
    for _ in range(rounds):
        for load in loads:
            seen[load].append(_wrk(load, clients, seconds))
    floors = {ours: floor for floor, ours in pairs}
    for load in loads:
        figures, floor = seen[load], floors.get(load)
        ratio = f"{_median(figures) / _median(seen[floor]):.2f}" if floor else ""
        p50, p99 = (statistics.median(getattr(figure, name) for figure in figures) for name in ("p50_ms", "p99_ms"))
        cpu, service_cpu = min(f.cpu_us for f in figures), min(f.service_cpu_us for f in figures)
        failed = sum(figure.failures for figure in figures)
        print(
            f"{load.name:44}{clients:>4}{_median(figures):>8.0f}{p50:>8.1f}{p99:>8.1f}{ratio:>9}"
            f"{cpu:>6.0f}{f'{service_cpu:.0f}' if floor else '':>9}{failed:>7}"
        )
    return sum(figure.failures for figures in seen.values() for figure in figures)


def _median(figures: list[Figure]) -> float:
    return statistics.median(figure.per_second for figure in figures)


def _wrk(load: Load, clients: int, seconds: int) -> Figure:
    # A key of its own for each request: a random prefix for each round, and a number.
    key = f'wrk.headers["Idempotency-Key"] = "{secrets.token_hex(8)}-" .. n' if load.has_key else ""
    script = f'n = 0\nrequest = function()\n n = n + 1\n {key}\n return wrk.format("{load.method}")\nend\n'
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "--timeout", "15s", "-s", file.name]
        if load.token:
            command += ["-H", f"Authorization: Bearer {load.token}"]
        before = cpu_seconds(load.pid), cpu_seconds(load.service_pid)
        out = subprocess.run([*command, load.url], capture_output=True, text=True, timeout=seconds + 30, check=True)
        used = cpu_seconds(load.pid) - before[0], cpu_seconds(load.service_pid) - before[1]
    return _figure(out.stdout, *used)


def _figure(text: str, cpu_seconds: float, service_cpu_seconds: float) -> Figure:
    """Read what wrk prints."""

    def milliseconds(percentile: str) -> float:
        found = re.search(rf"{percentile}%\s+([\d.]+)(us|ms|s)", text)
        scale = {"us": 0.001, "ms": 1, "s": 1000}
        return float(found[1]) * scale[found[2]] if found else float("nan")

    per_second = re.search(r"Requests/sec:\s+([\d.]+)", text)
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    failures = int(wrong[1] if wrong else 0) + sum(map(int, broken.groups() if broken else ()))
    requests = re.search(r"(\d+) requests in", text)
    each_us = 1e6 / max(int(requests[1]) if requests else 0, 1)
    return Figure(
        per_second=float(per_second[1]) if per_second else 0.0,
        p50_ms=milliseconds("50"),
        p99_ms=milliseconds("99"),
        failures=failures,
        cpu_us=cpu_seconds * each_us,
        service_cpu_us=service_cpu_seconds * each_us,
    )


@contextlib.contextmanager
def _processes(worker_classes: list[str]) -> Iterator[list[tuple[Load, Load]]]:
    """Run the service, and a gateway and a floor for each worker class. Yields: what is to be compared."""
    signing_key = Ed25519PrivateKey.generate()
    with _probe_database() as database_url, contextlib.ExitStack() as stack:
        passport_key = base64.b64encode(secrets.token_bytes(32)).decode()
        environment = {
            **os.environ,
            **{f"PASSPORT_KEY_{service.upper()}": passport_key for service in SERVICES},
            "SERVICE": "users",
            "DATABASE_URL": database_url,
            "PASSPORT_KEY": passport_key,
            "PROBE_SIGNING_KEY": base64.b64encode(signing_key.private_bytes_raw()).decode(),
            "SPOOL_DIR": stack.enter_context(tempfile.TemporaryDirectory()),
            "LOG_LEVEL": "ERROR",
        }
        declare_topology(os.environ["AMQP_URL"], [ProbeService])
        service = stack.enter_context(
            own_process(["shared.runner", "benchmarks.gateway_service:ProbeService"], environment)
        )
        token = probe_token(signing_key)
        pairs: list[tuple[Load, Load]] = []
        for worker_class in worker_classes:
            environment["GATEWAY_WORKER_CLASS"] = WORKER_CLASSES[worker_class]
            ours = stack.enter_context(_server("gateway", environment, token))
            floor = stack.enter_context(_server("floor", environment, token))
            pairs += _loads(worker_class, ours, floor, service.pid, token)
        yield pairs


@contextlib.contextmanager
def _server(kind: str, environment: dict[str, str], token: str) -> Iterator[Server]:
    port = free_port()
    with own_process(["benchmarks.gateway_probe", kind], environment | {"PORT": str(port)}) as process:
        url = f"http://127.0.0.1:{port}"
        wait_answered(f"{url}/noop", token)
        yield Server(url, process.pid)


@contextlib.contextmanager
def _probe_database() -> Iterator[str]:
    with own_database() as url:
        own = sa.create_engine(url, poolclass=sa.NullPool)
        metadata.create_all(own)
        with own.begin() as connection:
            connection.execute(sa.text(TABLE))
        yield url


if __name__ == "__main__":
    sys.exit(main())
