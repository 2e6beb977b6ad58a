"""Who may do what on the bus: one user a service and one for the gateway, each with the least that it needs (R29)."""

from dataclasses import dataclass

from operations.services import SERVICES

VHOST = "countinghouse"
ADMIN = "administrator"
GATEWAY = "gateway"


@dataclass(frozen=True)
class BusUser:
    """A user of the broker with its three patterns, and the routing keys that it may publish events under."""

    name: str
    configure: str
    write: str
    read: str
    publishes: str
    tags: tuple[str, ...] = ()


def bus_users() -> list[BusUser]:
    """Return every user of the broker."""
    return [_admin(), _gateway(), *(_service(name) for name in SERVICES)]


def _admin() -> BusUser:
    return BusUser(ADMIN, ".*", ".*", ".*", ".*", tags=("administrator",))


def _gateway() -> BusUser:
    own = r"^reply\.gateway(\..*)?$"
    return BusUser(GATEWAY, own, rf"^rpc$|{own}", own, "^$")


def _service(name: str) -> BusUser:
    own = rf"^(rpc|events)\.{name}(\..*)?$|^reply\.{name}(\..*)?$"
    # Answers and delayed retries go to a queue by its name, which is the default exchange's way.
    exchanges = r"^(rpc|events|retry|dead_letters|quarantine|amq\.default)$"
    return BusUser(
        name,
        configure=own,
        write=rf"{exchanges}|{own}",
        read=rf"^(rpc|events)$|{own}",
        publishes=rf"^{name}\..*$",
    )
