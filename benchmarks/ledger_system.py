"""A ledger behind a gateway, with somebody who says who calls, on databases of their own, for the benchmarks."""

import base64
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jwt
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kombu import Connection, Exchange, Queue

from benchmarks import ledger_floor
from benchmarks.gateway_probe import TABLE
from benchmarks.gateway_service import ProbeService
from operations import migrate
from services.ledger.service import LedgerService
from shared.contracts.users import JWT_ALGORITHM, JWT_AUDIENCE, JWT_ISSUER, JWT_TYPE
from shared.kernel_tables import metadata
from shared.topology import declare_topology

ROOT = Path(__file__).resolve().parents[1]
SERVICES = ("users", "settings", "ledger", "cards", "tasks", "telegram", "audit")
START_SECONDS_MAX = 40
MERCHANT = "mer_benchmark"


@dataclass(frozen=True)
class LedgerSystem:
    """Where it listens, and how to get in."""

    url: str
    floor_url: str
    token: str
    engine: sa.Engine


@contextlib.contextmanager
def ledger_system() -> Iterator[LedgerSystem]:
    """Run ledger, gateway and floor as processes, on the servers of DATABASE_URL and AMQP_URL."""
    signing_key = Ed25519PrivateKey.generate()
    with contextlib.ExitStack() as stack:
        ledger_url, users_url = (stack.enter_context(_database()) for _ in range(2))
        migrate.upgrade("ledger", ledger_url)
        engine = sa.create_engine(ledger_url, connect_args={"options": "-c timezone=UTC"})
        stack.callback(engine.dispose)
        with engine.begin() as connection:
            connection.exec_driver_sql(ledger_floor.TABLES)
            connection.exec_driver_sql(
                "insert into merchant_copies values (%(m)s, 'BENCH', 'Benchmark', 'active', 1)", {"m": MERCHANT}
            )
        users = sa.create_engine(users_url, poolclass=sa.NullPool)
        metadata.create_all(users)
        with users.begin() as connection:
            connection.execute(sa.text(TABLE))
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        environment = {
            **os.environ,
            **{f"PASSPORT_KEY_{service.upper()}": key for service in SERVICES},
            "PASSPORT_KEY": key,
            "PROBE_SIGNING_KEY": base64.b64encode(signing_key.private_bytes_raw()).decode(),
            "SPOOL_DIR": stack.enter_context(tempfile.TemporaryDirectory()),
            "LOG_LEVEL": "ERROR",
        }
        declare_topology(os.environ["AMQP_URL"], [ProbeService, LedgerService])
        _declare_listener(os.environ["AMQP_URL"])
        gateway, floor = _free_port(), _free_port()
        for module, service, url, port in (
            (["shared.runner", "benchmarks.gateway_service:ProbeService"], "users", users_url, 0),
            (["shared.runner", "services.ledger.service:LedgerService"], "ledger", ledger_url, 0),
            (["gateway"], "", "", gateway),
            (["benchmarks.ledger_floor"], "", ledger_url, floor),
        ):
            stack.enter_context(
                _process(module, environment | {"SERVICE": service, "DATABASE_URL": url, "PORT": str(port)})
            )
        token = _token(signing_key)
        url, floor_url = f"http://127.0.0.1:{gateway}/api/v1", f"http://127.0.0.1:{floor}"
        _wait_for(f"{url}/balance-types", token)
        _wait_for(f"{floor_url}/", "")
        yield LedgerSystem(url, floor_url, token, engine)


def _declare_listener(amqp_url: str) -> None:
    """Declare a queue that takes all events as audit's does, and keeps the newest: one that no queue takes waits."""
    arguments = {"x-queue-type": "quorum", "x-max-length": 1000}
    queue = Queue("benchmark.events", Exchange("events", "topic"), routing_key="#", queue_arguments=arguments)
    with Connection(amqp_url) as connection:
        queue(connection.default_channel).declare()


@contextlib.contextmanager
def _database() -> Iterator[str]:
    admin = sa.create_engine(
        sa.make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg"),
        isolation_level="AUTOCOMMIT",
        poolclass=sa.NullPool,
    )
    name = f"benchmark_{secrets.token_hex(4)}"
    with admin.connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
    try:
        yield admin.url.set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"drop database {name} with (force)"))


@contextlib.contextmanager
def _process(module: list[str], environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-m", *module], cwd=ROOT, env=environment)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)


def _token(key: Ed25519PrivateKey) -> str:
    now = int(time.time())
    claims = {
        "iss": JWT_ISSUER,
        "aud": JWT_AUDIENCE,
        "sub": "usr_probe",
        "sid": "ses_probe",
        "jti": "jti_probe",
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
    }
    return jwt.encode(claims, key, algorithm=JWT_ALGORITHM, headers={"kid": "probe", "typ": JWT_TYPE})


def _wait_for(url: str, token: str) -> None:
    """Wait until somebody answers, be it with a 404."""
    give_up_at = time.monotonic() + START_SECONDS_MAX
    while True:
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=5):  # noqa: S310  # our own address
                return
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return
        except OSError:
            pass
        if time.monotonic() > give_up_at:
            raise SystemExit(f"{url} did not answer")
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
