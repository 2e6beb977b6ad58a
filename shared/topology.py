"""The exchanges and queues of the bus, declared at deployment before anything is published.

    rpc       direct   → rpc.<service>                 a call; gone when nobody waits for it any more
    replies   direct   → reply.<process>.<id>          exclusive to the caller's connection
    events    topic    → events.<service>.<handler>    a quorum queue for each handler
    retry.<n> fanout   → retry.<n>  → (n ms later) →   back to the queue that the routing key names
    dead_letters, quarantine   fanout                  what was given up, and what is no message of ours

Arguments of a queue cannot be changed once it is declared: a change needs a new name. Source: RELIABILITY.md R2.
"""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kombu import Connection, Exchange, Queue, binding

from shared.rpc.wire import REPLIES_EXCHANGE, RPC_EXCHANGE

EVENTS_EXCHANGE = "events"
DEAD_LETTERS = "dead_letters"
QUARANTINE = "quarantine"
RETRY_DELAYS_MS = (1_000, 5_000, 30_000, 120_000, 600_000)
DELIVERIES_MAX = 10  # a message that ends its consumer so often is given up
RPC_WAIT_MS_MAX = 60_000
SUBSCRIPTION_ATTRIBUTE = "subscription"

_QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}
_SAFE_DEAD_LETTERING: dict[str, Any] = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}


@dataclass(frozen=True)
class Subscription:
    """Which events a handler hears: routing keys, where `#` is every event."""

    routing_keys: tuple[str, ...]
    batch: int = 1


def rpc_queue_name(service: str) -> str:
    """Return the name of the queue that a service takes its calls from."""
    return f"rpc.{service}"


def event_queue_name(service: str, handler: str) -> str:
    """Return the name of the queue that a service's handler hears its events from."""
    return f"events.{service}.{handler}"


def retry_name(delay_ms: int) -> str:
    """Return the name of the exchange and queue where a message waits so long."""
    return f"retry.{delay_ms}"


def subscriptions(service_class: type) -> dict[str, Subscription]:
    """Return what a service hears: handler to subscription."""
    return {
        name: getattr(method, SUBSCRIPTION_ATTRIBUTE)
        for name, method in inspect.getmembers(service_class, inspect.isfunction)
        if hasattr(method, SUBSCRIPTION_ATTRIBUTE)
    }


def queues_of(service_class: Any) -> list[Queue]:
    """Return the queues that a service consumes."""
    service = service_class.name
    rpc = Queue(
        rpc_queue_name(service),
        Exchange(RPC_EXCHANGE, "direct"),
        routing_key=service,
        queue_arguments={"x-message-ttl": RPC_WAIT_MS_MAX},
    )
    return [rpc, *(_event_queue(service, name, s) for name, s in subscriptions(service_class).items())]


def _event_queue(service: str, handler: str, subscription: Subscription) -> Queue:
    events = Exchange(EVENTS_EXCHANGE, "topic")
    return Queue(
        event_queue_name(service, handler),
        bindings=[binding(events, routing_key=key) for key in subscription.routing_keys],
        queue_arguments={
            **_QUORUM,
            **_SAFE_DEAD_LETTERING,
            "x-delivery-limit": DELIVERIES_MAX,
            "x-dead-letter-exchange": DEAD_LETTERS,
        },
    )


def shared_queues() -> list[Queue]:
    """Return the queues that belong to nobody: retries, dead letters, quarantine."""
    waiting = [
        Queue(
            retry_name(delay_ms),
            Exchange(retry_name(delay_ms), "fanout"),
            # Without a dead-letter routing key a message keeps its own, which names the queue that it goes back to.
            queue_arguments={
                **_QUORUM,
                **_SAFE_DEAD_LETTERING,
                "x-message-ttl": delay_ms,
                "x-dead-letter-exchange": "",
            },
        )
        for delay_ms in RETRY_DELAYS_MS
    ]
    final = [Queue(name, Exchange(name, "fanout"), queue_arguments=_QUORUM) for name in (DEAD_LETTERS, QUARANTINE)]
    return [*waiting, *final]


def declare_topology(amqp_url: str, service_classes: Iterable[Any]) -> None:
    """Declare everything that these services need of the bus; harmless where it is there already."""
    with Connection(amqp_url, connect_timeout=5) as connection:
        channel = connection.default_channel
        Exchange(REPLIES_EXCHANGE, "direct")(channel).declare()
        queues = [*shared_queues(), *(queue for c in service_classes for queue in queues_of(c))]
        for queue in queues:
            queue(channel).declare()
