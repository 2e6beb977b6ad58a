"""What several benchmarks put up before they measure: a database, processes, a token, somebody who hears all events."""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import jwt
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kombu import Connection, Exchange, Queue

from operations import migrate
from shared.contracts.users import JWT_ALGORITHM, JWT_AUDIENCE, JWT_ISSUER, JWT_TYPE
from shared.outbox import EVENTS_EXCHANGE

ROOT = Path(__file__).resolve().parents[1]
SERVICES = ("users", "settings", "ledger", "cards", "tasks", "telegram", "audit")
START_SECONDS_MAX = 40
STOP_SECONDS_MAX = 40


@contextlib.contextmanager
def own_database(service: str | None = None) -> Iterator[str]:
    """Make a database on the server of DATABASE_URL, migrated for a service or empty, and drop it at the end."""
    admin = sa.create_engine(
        sa.make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg"),
        isolation_level="AUTOCOMMIT",
        poolclass=sa.NullPool,
    )
    name = f"benchmark_{secrets.token_hex(4)}"
    with admin.connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
    url = admin.url.set(database=name).render_as_string(hide_password=False)
    try:
        if service is not None:
            migrate.upgrade(service, url)
        yield url
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"drop database {name} with (force)"))


@contextlib.contextmanager
def own_process(module: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m …`, and end it in an orderly way."""
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-m", *module], cwd=ROOT, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(STOP_SECONDS_MAX)


def cpu_seconds(pid: int) -> float:
    """Return how much CPU a process and its children have used; gunicorn's worker is a child of its master."""
    if not pid:
        return 0.0
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ticks = 0
    for each in [pid, *map(int, children)]:
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def hear_all_events(amqp_url: str) -> None:
    """Declare a queue that takes all events as audit's does, and keeps the newest: one that no queue takes waits."""
    arguments = {"x-queue-type": "quorum", "x-max-length": 1000}
    queue = Queue("benchmark.events", Exchange(EVENTS_EXCHANGE, "topic"), routing_key="#", queue_arguments=arguments)
    with Connection(amqp_url) as connection:
        queue(connection.default_channel).declare()


def probe_token(key: Ed25519PrivateKey) -> str:
    """Return an access token of the session that the probe service knows."""
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


def wait_answered(url: str, token: str = "") -> None:
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


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
