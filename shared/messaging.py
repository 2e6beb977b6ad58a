"""How a service hears events: `@handles` and `@handles_batch`. No message can end the process or be lost.

An event's effect and the note that it was received are one transaction. Source: RELIABILITY.md R3.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from nameko.extensions import register_entrypoint

from shared import inbox
from shared.consuming import EventHandler, act_for
from shared.events import Envelope, Event, event_of
from shared.topology import SUBSCRIPTION_ATTRIBUTE, Subscription


def handles(*event_classes: type[Event]) -> Callable[[Any], Any]:
    """Declare a handler of events: `(self, session, envelope, event)`, run once for each event.

    The session's transaction holds the effect and the note that the event was received.
    """

    def decorate(handler: Any) -> Any:
        @wraps(handler)
        def receive(self: Any, envelopes: list[Envelope]) -> None:
            (envelope,) = envelopes
            event = event_of(envelope)
            if event is None:
                raise ValueError(f"unknown event {envelope['event']}")

            def take(session: Any) -> None:
                if inbox.take_new(session, handler.__name__, envelopes):
                    handler(self, session, envelope, event)

            act_for(envelope, self.name, handler.__name__, lambda: self.database.run(take))

        return _subscribed(receive, Subscription(tuple(c.routing_key() for c in event_classes)))

    return decorate


def handles_batch(*event_classes: type[Event], size: int) -> Callable[[Any], Any]:
    """Declare a handler of many events at once: `(self, session, envelopes)`, up to `size` in one transaction.

    event_classes: none is every event of every service. What the handler itself tells of names the first one's actor.
    """

    def decorate(handler: Any) -> Any:
        @wraps(handler)
        def receive(self: Any, envelopes: list[Envelope]) -> None:
            def take(session: Any) -> None:
                if new := inbox.take_new(session, handler.__name__, envelopes):
                    handler(self, session, new)

            act_for(envelopes[0], self.name, handler.__name__, lambda: self.database.run(take))

        keys = tuple(c.routing_key() for c in event_classes) or ("#",)
        return _subscribed(receive, Subscription(keys, batch=size))

    return decorate


def _subscribed(receive: Any, subscription: Subscription) -> Any:
    setattr(receive, SUBSCRIPTION_ATTRIBUTE, subscription)
    register_entrypoint(receive, EventHandler(subscription))
    return receive
