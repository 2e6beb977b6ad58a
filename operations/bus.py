"""Who may do what on the bus: one user a service and one for the gateway, each with the least that it needs (R29).

The queues are declared by the administrator at deployment (`operations.topology`), so that a process only takes from
its own queues, declares the queue of its own replies, and tells no events but its own.
"""

from dataclasses import dataclass

from operations.services import SERVICES

VHOST = "countinghouse"
ADMIN = "administrator"
GATEWAY = "gateway"
NOTHING = "^$"


@dataclass(frozen=True)
class BusUser:
    """A user of the broker with its three patterns, and the routing keys that it may publish events under."""

    name: str
    configure: str
    write: str
    read: str
    publishes: str
    hears: str = NOTHING
    tags: tuple[str, ...] = ()


def bus_users() -> list[BusUser]:
    """Return every user of the broker."""
    return [_admin(), _gateway(), *(_service(name) for name in SERVICES)]


def _admin() -> BusUser:
    return BusUser(ADMIN, ".*", ".*", ".*", publishes=".*", hears=".*", tags=("administrator",))


def _gateway() -> BusUser:
    replies = _reply_queues(GATEWAY)
    return BusUser(
        GATEWAY,
        configure=replies,
        write=rf"^(rpc|events)$|{replies}",
        read=rf"^replies$|{replies}",
        publishes=_own_events(GATEWAY),
    )


def _service(name: str) -> BusUser:
    replies = _reply_queues(name)
    return BusUser(
        name,
        configure=replies,
        write=rf"^(rpc|replies|events|retry\.[0-9]+|dead_letters|quarantine)$|{replies}",
        read=rf"^replies$|^rpc\.{name}$|^events\.{name}\..*$|{replies}",
        publishes=_own_events(name),
    )


def _reply_queues(name: str) -> str:
    return rf"^reply\.{name}(-[0-9a-z]+)?\..*$"


def _own_events(name: str) -> str:
    """What a process tells of itself bears the name `system`, whoever it is."""
    return rf"^({name}|system)\..*$"
