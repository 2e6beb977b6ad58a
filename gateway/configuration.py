"""What a gateway process is told by its environment."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network

from shared.config import passport_key

SERVICES = ("users", "settings", "ledger", "cards", "tasks", "telegram", "audit")


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Everything that differs from one gateway process to another.

    passport_keys: service to the 32 bytes by which passports for it are signed and messages to it sealed.
    spool_dir: where records of API calls wait for the bus; survives a restart.
    trusted_proxies: networks whose X-Forwarded-For is believed; none by default.
    """

    amqp_url: str
    passport_keys: Mapping[str, bytes]
    spool_dir: str = field(default_factory=lambda: os.path.join(tempfile.gettempdir(), "countinghouse-gateway-spool"))
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    instance: str = "gateway-1"


def from_environment(environment: Mapping[str, str] = os.environ) -> Configuration:
    """Read the configuration. Raises: KeyError naming the first variable that lacks."""
    optional = {"spool_dir": environment.get("SPOOL_DIR"), "instance": environment.get("INSTANCE")}
    return Configuration(
        amqp_url=environment["AMQP_URL"],
        passport_keys={s: passport_key(environment[f"PASSPORT_KEY_{s.upper()}"]) for s in SERVICES},
        trusted_proxies=tuple(ip_network(n.strip()) for n in environment.get("TRUSTED_PROXIES", "").split(",") if n),
        **{name: value for name, value in optional.items() if value},
    )
