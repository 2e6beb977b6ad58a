"""What a card's timeline says of an event: its kind, and what of it somebody may see. Pure."""

from typing import Any

from shared.contracts.cards import (
    CardActivated,
    CardAssigned,
    CardClosed,
    CardCreated,
    CardFrozen,
    CardRevealed,
    CardToppedUp,
    CardTransferRefused,
    CardUnfrozen,
    CardUpdated,
    CardWithdrawn,
)
from shared.contracts.devices import DeviceBound, DeviceUnbound
from shared.events import Event

KINDS = ("status", "balance", "device", "merchant", "limits", "details", "reveal")
_KIND_OF: dict[type[Event], str] = {
    CardCreated: "status",
    CardActivated: "status",
    CardFrozen: "status",
    CardUnfrozen: "status",
    CardClosed: "status",
    CardToppedUp: "balance",
    CardWithdrawn: "balance",
    CardTransferRefused: "balance",
    DeviceBound: "device",
    DeviceUnbound: "device",
    CardAssigned: "merchant",
    CardUpdated: "details",
    CardRevealed: "reveal",
}
# What a row says in columns of its own, and what its card says of itself.
_SAID_ELSEWHERE = frozenset({"card_id", "merchant_id", "number_masked", "reason", "changes"})


def kind_of(event: Event) -> str | None:
    """Return the kind of what happened to a card; None for an event that is not about one card."""
    if isinstance(event, CardUpdated) and event.changes.keys() == {"limits"}:
        return "limits"
    return _KIND_OF.get(type(event))


def details_of(event: Event) -> dict[str, Any]:
    """Return what an event says besides card, merchant, reason and changes."""
    return {k: v for k, v in event.payload().items() if k not in _SAID_ELSEWHERE and v is not None}


def cut_changes(changes: dict[str, Any] | None, merchants: frozenset[str] | None) -> dict[str, Any] | None:
    """Return changes without the ids of merchants that somebody does not see: they are null there."""
    if changes is None or "merchant_id" not in changes or merchants is None:
        return changes
    sides = {side: value if value in merchants else None for side, value in changes["merchant_id"].items()}
    return changes | {"merchant_id": sides}
