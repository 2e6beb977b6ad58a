"""A ledger behind a gateway, with somebody who says who calls, on databases of their own, for the benchmarks."""

import base64
import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks import ledger_floor
from benchmarks.gateway_probe import TABLE
from benchmarks.gateway_service import ProbeService
from benchmarks.probe_furniture import (
    SERVICES,
    free_port,
    hear_all_events,
    own_database,
    own_process,
    probe_token,
    wait_answered,
)
from operations import migrate
from services.ledger.service import LedgerService
from shared.kernel_tables import metadata
from shared.topology import declare_topology

ROOT = Path(__file__).resolve().parents[1]
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
        ledger_url, users_url = (stack.enter_context(own_database()) for _ in range(2))
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
            "CHANNEL_KEY": key,
            "PROBE_SIGNING_KEY": base64.b64encode(signing_key.private_bytes_raw()).decode(),
            "SPOOL_DIR": stack.enter_context(tempfile.TemporaryDirectory()),
            "LOG_LEVEL": "ERROR",
        }
        declare_topology(os.environ["AMQP_URL"], [ProbeService, LedgerService])
        hear_all_events(os.environ["AMQP_URL"])
        gateway, floor = free_port(), free_port()
        for module, service, url, port in (
            (["shared.runner", "benchmarks.gateway_service:ProbeService"], "users", users_url, 0),
            (["shared.runner", "services.ledger.service:LedgerService"], "ledger", ledger_url, 0),
            (["gateway"], "", "", gateway),
            (["benchmarks.ledger_floor"], "", ledger_url, floor),
        ):
            stack.enter_context(
                own_process(module, environment | {"SERVICE": service, "DATABASE_URL": url, "PORT": str(port)})
            )
        token = probe_token(signing_key)
        url, floor_url = f"http://127.0.0.1:{gateway}/api/v1", f"http://127.0.0.1:{floor}"
        wait_answered(f"{url}/balance-types", token)
        wait_answered(f"{floor_url}/")
        yield LedgerSystem(url, floor_url, token, engine)
