"""The sample service as a real process on a real bus."""

import base64
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from shared.passport import Passport
from shared.publishing import ConfirmedPublisher
from shared.rpc.client import RpcClient
from shared.topology import declare_topology
from tests.shared.sample_service import SampleService, make_tables

ROOT = Path(__file__).resolve().parents[2]


def eventually(check: Callable[[], Any], *, within_seconds: float = 15) -> Any:
    """Return what `check` returns as soon as it is true. Fails when it is not so in time."""
    give_up_at = time.monotonic() + within_seconds
    while not (found := check()):
        assert time.monotonic() < give_up_at, "it did not come true in time"
        time.sleep(0.05)
    return found


class Sample:
    """One sample service: its database, its processes, and a client of it."""

    def __init__(self, database_url: str, amqp_url: str, log_path: Path) -> None:
        self.key = secrets.token_bytes(32)
        self.amqp_url = amqp_url
        self.engine = sa.create_engine(database_url)
        self.log_path = log_path
        self.processes: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **os.environ,
            "SERVICE": "sample",
            "DATABASE_URL": database_url,
            "AMQP_URL": amqp_url,
            "PASSPORT_KEY": base64.b64encode(self.key).decode(),
            "PASSPORT_KEY_SAMPLE": base64.b64encode(self.key).decode(),
        }
        self.client = RpcClient(amqp_url, {"sample": self.key, "nobody": self.key}, name="tests").start()
        self.publisher = ConfirmedPublisher(amqp_url, name="tests-publisher")
        self.publisher.start()

    def start(self, passport: Passport) -> subprocess.Popen[bytes]:
        """Start a process and wait until it answers."""
        with self.log_path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "shared.runner", "tests.shared.sample_service:SampleService"],
                cwd=ROOT,
                env=self.environment,
                stderr=log,
                stdout=log,
            )
        self.processes.append(process)
        instance = f"sample-{process.pid}"
        eventually(lambda: self.client.call("sample", "ping", passport=passport).result["instance"] == instance)
        return process

    def rows(self, sql: str) -> list[Any]:
        """Return what a query finds now."""
        with self.engine.connect() as connection:
            return list(connection.execute(sa.text(sql)).all())

    def log(self) -> str:
        """Return what the processes have logged."""
        return self.log_path.read_text()

    def stop(self) -> None:
        """End everything that was started."""
        self.client.stop()
        self.publisher.stop()
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes:
            process.wait(30)
        self.engine.dispose()


@pytest.fixture(scope="module")
def sample_system(server_url: str, amqp_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sample]:
    """A database and a bus for the sample service, without a process yet."""
    admin = sa.create_engine(
        sa.make_url(server_url).set(drivername="postgresql+psycopg"),
        isolation_level="AUTOCOMMIT",
        poolclass=sa.NullPool,
    )
    name = f"test_sample_{secrets.token_hex(4)}"
    with admin.connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
    url = admin.url.set(database=name).render_as_string(hide_password=False)
    sample = Sample(url, amqp_url, tmp_path_factory.mktemp("sample") / "sample.log")
    make_tables(sample.engine)
    declare_topology(amqp_url, [SampleService])
    yield sample
    sample.stop()
    with admin.connect() as connection:
        connection.execute(sa.text(f"drop database {name} with (force)"))


@pytest.fixture
def sample(sample_system: Sample, alice: Passport) -> Sample:
    """The sample service with at least one process that answers."""
    if not any(process.poll() is None for process in sample_system.processes):
        sample_system.start(alice)
    return sample_system
