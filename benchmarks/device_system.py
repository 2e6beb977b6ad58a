"""A fleet of devices in a database of cards, and cards behind a gateway on top of it. Used by `devices`."""

import base64
import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

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
from services.cards.service import CardsService
from shared.kernel_tables import metadata
from shared.topology import declare_topology

MERCHANTS = 50
DEVICES_PER_CARD = 5

# Five devices a card, as many as the parameter lets; a merchant's cards and devices lie together as they would.
_CARDS = """
insert into cards (id, number_index, number_sealed, number_key_id, number_masked, bin, last4, brand, holder_name,
    currency, expiry, status, merchant_id)
select 'car_' || lpad(cast(n as text), 26, '0'), sha256(cast(cast(n as text) as bytea)), '\\x00', 'k1',
    '411111******1111', '411111', '1111', 'visa', 'Holder', 'CNY', '2029-05', 'active', 'mer_' || n % :merchants
from generate_series(0, :devices / :devices_per_card - 1) n
"""
_DEVICES = """
with made as (
    insert into devices (id, merchant_id, name, platform, fingerprint, status)
    select 'dev_' || lpad(cast(n as text), 26, '0'), 'mer_' || (n / :devices_per_card) % :merchants, 'Till ' || n,
        'android', md5(cast(n as text)), 'bound'
    from generate_series(0, :devices - 1) n
    returning id, merchant_id
), present as (
    insert into device_presence (device_id, merchant_id, last_seen_at, watched_since)
    select id, merchant_id, clock_timestamp(), clock_timestamp() from made order by id
)
insert into card_devices (card_id, device_id, bound_at, bound_by)
select 'car_' || lpad(cast(cast(right(id, 26) as bigint) / :devices_per_card as text), 26, '0'), id,
    clock_timestamp(), 'benchmark'
from made
"""


@dataclass(frozen=True)
class DeviceSystem:
    """Where it listens, how to get in, and its processes."""

    url: str
    token: str
    pids: dict[str, int]


def device_id(number: int) -> str:
    """Return the id of a device of the fleet."""
    return f"dev_{number:026}"


def make_fleet(engine: sa.Engine, devices: int) -> None:
    """Make so many devices, all bound and heard of a moment ago."""
    values = {"devices": devices, "devices_per_card": DEVICES_PER_CARD, "merchants": MERCHANTS}
    with engine.begin() as connection:
        connection.execute(sa.text(_CARDS), values)
        connection.execute(sa.text(_DEVICES), values)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("vacuum analyze")


@contextlib.contextmanager
def device_system(cards_url: str) -> Iterator[DeviceSystem]:
    """Run cards on this database, and a gateway before it, on the bus of AMQP_URL."""
    signing_key = Ed25519PrivateKey.generate()
    with contextlib.ExitStack() as stack:
        users_url = stack.enter_context(own_database())
        users = sa.create_engine(users_url, poolclass=sa.NullPool)
        metadata.create_all(users)
        with users.begin() as connection:
            connection.execute(sa.text(TABLE))
        key, pan_key, index_key = (base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(3))
        environment = {
            **os.environ,
            **{f"PASSPORT_KEY_{service.upper()}": key for service in SERVICES},
            "PASSPORT_KEY": key,
            "PAN_KEY": pan_key,
            "PAN_KEY_ID": "k1",
            "PAN_INDEX_KEY": index_key,
            "PROBE_SIGNING_KEY": base64.b64encode(signing_key.private_bytes_raw()).decode(),
            "SPOOL_DIR": stack.enter_context(tempfile.TemporaryDirectory()),
            "LOG_LEVEL": "ERROR",
        }
        declare_topology(os.environ["AMQP_URL"], [ProbeService, CardsService])
        hear_all_events(os.environ["AMQP_URL"])
        port, pids = free_port(), {}
        for module, service, url in (
            (["shared.runner", "benchmarks.gateway_service:ProbeService"], "users", users_url),
            (["shared.runner", "services.cards.service:CardsService"], "cards", cards_url),
            (["gateway"], "", ""),
        ):
            process = stack.enter_context(
                own_process(module, environment | {"SERVICE": service, "DATABASE_URL": url, "PORT": str(port)})
            )
            pids[service or "gateway"] = process.pid
        token, url = probe_token(signing_key), f"http://127.0.0.1:{port}/api/v1"
        wait_answered(f"{url}/devices?limit=1", token)
        yield DeviceSystem(url, token, pids)
