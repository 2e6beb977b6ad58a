"""The one table of our own processes: what each runs, and the environment that it runs in.

Both are written down, for their owner's eyes only, before the supervisor starts a process, which reads them as
`operations.become`; a changed secret or address is taken over by a restart.
"""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from operations import keys
from operations.bus import GATEWAY
from operations.databases import service_database
from operations.home import Home, write_private
from operations.ports import GATEWAY_CHOICE, LOOPBACK
from operations.servers import Servers
from operations.services import SERVICES
from operations.supervision import ROOT, Program

SIMULATOR = "telegram-simulator"
PAYMENT_SIMULATOR = "payment-simulator"
SCALABLE = (*SERVICES, GATEWAY)
INSTANCES_MAX = 16
CALLS_THE_WORLD = ("ledger", "telegram")


@dataclass(frozen=True)
class Process:
    """One process of ours: an instance of a service, of the gateway, or a simulator."""

    service: str
    number: int = 1

    @property
    def name(self) -> str:
        """Its name for the supervisor, the logs and the bus."""
        return f"{self.service}-{self.number}" if self.service in SERVICES else self.service


def is_of(name: str, service: str) -> bool:
    """Return whether a process is that one, or an instance of that service: `ledger-2` is of `ledger`."""
    family, _, number = name.rpartition("-")
    return name == service or (family == service and number.isdigit())


def processes(home: Home) -> list[Process]:
    """Return all processes of an instance, as it was scaled."""
    rows = [Process(service, number + 1) for service in SERVICES for number in range(instances(home, service))]
    rows.append(Process(GATEWAY))
    if not home.given("TELEGRAM_API_URL"):
        rows.append(Process(SIMULATOR))
    if has_payment_simulator(home):
        rows.append(Process(PAYMENT_SIMULATOR))
    return rows


def has_payment_simulator(home: Home) -> bool:
    """Return whether a simulated payment platform runs beside the services."""
    return home.given("PAYMENT_SIMULATOR") != "off"


def instances(home: Home, service: str) -> int:
    """Return how many instances of a service run, or how many workers the gateway's one process has."""
    count: int = home.state.get("scale", {}).get(service, 1)
    return count


def programs(home: Home) -> list[Program]:
    """Return all processes as supervised programs."""
    become = [sys.executable, "-I", "-S", str(ROOT / "operations" / "become.py")]
    return [Program(process.name, [*become, str(_orders(home, process))]) for process in processes(home)]


def write_orders(home: Home, servers: Servers) -> None:
    """Write down for every process what it runs and what it is told, which makes whatever keys still lack."""
    for process in processes(home):
        orders = {"command": command(process), "environment": environment(home, servers, process)}
        write_private(_orders(home, process), json.dumps(orders, indent=1) + "\n")


def _orders(home: Home, process: Process) -> Path:
    return home.run / f"{process.name}.json"


def gateway_port(home: Home) -> int:
    """Return the port of the HTTP API and the console."""
    return home.port(GATEWAY, preferred=GATEWAY_CHOICE)


def gateway_url(home: Home) -> str:
    """Return the address of the HTTP API and the console."""
    return f"http://{LOOPBACK}:{gateway_port(home)}"


def simulator_url(home: Home) -> str:
    """Return the address of the simulated Bot API."""
    return f"http://{LOOPBACK}:{home.port(SIMULATOR)}"


def payment_simulator_url(home: Home) -> str:
    """Return the address of the simulated payment platform."""
    return f"http://{LOOPBACK}:{home.port(PAYMENT_SIMULATOR)}"


def command(process: Process) -> list[str]:
    """Return what a process runs."""
    python = [sys.executable, "-P", "-m"]
    if process.service == GATEWAY:
        return [*python, "gateway"]
    if process.service == SIMULATOR:
        return [*python, "simulators.telegram"]
    if process.service == PAYMENT_SIMULATOR:
        return [*python, "simulators.payment_platform"]
    return [*python, "shared.runner", SERVICES[process.service].target]


def environment(home: Home, servers: Servers, process: Process) -> dict[str, str]:
    """Return what a process is told: its own keys and addresses, and nobody else's."""
    told = {
        "INSTANCE": process.name,
        "LOG_LEVEL": home.given("LOG_LEVEL") or "INFO",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "COUNTINGHOUSE_HOME": str(home.path),
    }
    if process.service == SIMULATOR:
        return told | {"PORT": str(home.port(SIMULATOR)), "TELEGRAM_BOT_TOKEN": keys.bot_token(home)}
    if process.service == PAYMENT_SIMULATOR:
        port = str(home.port(PAYMENT_SIMULATOR))
        return told | {"PORT": port, "PAYMENT_PLATFORM_SECRET": keys.payment_secret(home)}
    told["AMQP_URL"] = servers.user_amqp_url(process.service)
    if process.service == GATEWAY:
        return told | _passport_keys(home, SERVICES) | _gateway(home)
    service = SERVICES[process.service]
    told |= _passport_keys(home, service.callees) | {
        "SERVICE": service.name,
        "DATABASE_URL": service_database(home, servers.database_url, service.name).app_url,
        "PASSPORT_KEY": keys.passport_key(home, service.name),
        "MAX_WORKERS": home.given("MAX_WORKERS") or "32",
    }
    if service.name not in CALLS_THE_WORLD:
        told["EVENTLET_NO_GREENDNS"] = "yes"  # they look up nothing but loopback, and start a tenth faster
    own = {"users": _users, "ledger": _ledger, "cards": keys.card_number_keys, "telegram": _telegram}.get(service.name)
    return told | (own(home) if own else {})


def _passport_keys(home: Home, callees: Iterable[str]) -> dict[str, str]:
    return {f"PASSPORT_KEY_{callee.upper()}": keys.passport_key(home, callee) for callee in callees}


def _gateway(home: Home) -> dict[str, str]:
    spool = home.path / "spool"
    spool.mkdir(mode=0o700, exist_ok=True)
    return {
        "PORT": str(gateway_port(home)),
        "SPOOL_DIR": str(spool),
        "GATEWAY_WORKERS": str(instances(home, GATEWAY)),
        "TRUSTED_PROXIES": home.given("TRUSTED_PROXIES") or "",
    }


def _users(home: Home) -> dict[str, str]:
    return {"SIGNING_KEY_FILE": str(keys.signing_key_file(home)), **keys.totp_keys(home)}


def _ledger(home: Home) -> dict[str, str]:
    """Return the keys of channels' secrets, and where the ledger may ask besides public addresses."""
    nearby = [home.given("OUTBOUND_ALLOW") or ""]
    if has_payment_simulator(home):
        nearby.append(f"{LOOPBACK}:{home.port(PAYMENT_SIMULATOR)}")
    told = keys.ChannelKeyRing(home).environment() | {"OUTBOUND_ALLOW": ",".join(filter(None, nearby))}
    stripe = home.given("STRIPE_API_BASE")
    return told | ({"STRIPE_API_BASE": stripe} if stripe else {})


def _telegram(home: Home) -> dict[str, str]:
    return {
        "TELEGRAM_API_URL": home.given("TELEGRAM_API_URL") or simulator_url(home),
        "TELEGRAM_BOT_TOKEN": home.given("TELEGRAM_BOT_TOKEN") or keys.bot_token(home),
    }
