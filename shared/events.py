"""Facts that happened, in the past tense: frozen dataclasses of JSON primitives, and their envelope on the wire.

A new field with a default is the same version; anything else is a new class beside the old one.
"""

import dataclasses
from typing import Any, ClassVar, TypedDict

_REGISTRY: dict[str, type["Event"]] = {}


class Actor(TypedDict):
    """Who did it: `type` is user, api_key, service or system."""

    id: str
    name: str
    type: str


class Envelope(TypedDict):
    """An event on the wire: what everyone may know of it without knowing its class."""

    event_id: str
    event: str
    service: str
    occurred_at: str
    request_id: str
    actor: Actor
    ip: str
    user_agent: str
    action: str
    resource_type: str
    resource_id: str
    merchant_id: str | None
    payload: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """The root of all events. A subclass names the `service` that emits it and the `resource_type` it is about.

    The fields `merchant_id`, `reason` and `changes` ({field: {"before": …, "after": …}}) mean the same everywhere.
    """

    service: ClassVar[str]
    resource_type: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _REGISTRY[f"{cls.service}.{cls.__name__}"] = cls

    @classmethod
    def routing_key(cls) -> str:
        """Return the event's name on the bus: `cards.CardFrozen`."""
        return f"{cls.service}.{cls.__name__}"

    def resource_id(self) -> str:
        """Return the id of what this event is about: by default the field `<resource_type>_id`."""
        return str(getattr(self, f"{self.resource_type}_id", ""))

    def payload(self) -> dict[str, Any]:
        """Return the fields as JSON primitives; containers are shared, not copied."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


def event_of(envelope: Envelope) -> Event | None:
    """Rebuild the event in an envelope; None for a class that this process does not know.

    Fields that this version of the class does not have are passed over, so that a newer sender is understood.
    """
    event_class = _REGISTRY.get(f"{envelope['service']}.{envelope['event']}")
    if event_class is None:
        return None
    known = {f.name for f in dataclasses.fields(event_class)}
    return event_class(**{k: v for k, v in envelope["payload"].items() if k in known})


def known_events() -> dict[str, type[Event]]:
    """Return every event class that has been imported, by routing key."""
    return dict(_REGISTRY)
