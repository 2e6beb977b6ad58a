"""The states of a card and what may follow: inactive → active ↔ frozen → closed. Closed stays closed."""

from enum import StrEnum

from shared.contracts.cards import (
    CardAlreadyActive,
    CardAlreadyFrozen,
    CardIsClosed,
    CardIsFrozen,
    CardNotActive,
    CardNotFrozen,
)
from shared.errors import Conflict


class Status(StrEnum):
    """Where a card is in its life."""

    INACTIVE = "inactive"
    ACTIVE = "active"
    FROZEN = "frozen"
    CLOSED = "closed"


class Verb(StrEnum):
    """What can be done to a card's state."""

    ACTIVATE = "activate"
    FREEZE = "freeze"
    UNFREEZE = "unfreeze"
    CLOSE = "close"


TRANSITIONS: dict[tuple[Status, Verb], Status | type[Conflict]] = {
    (Status.INACTIVE, Verb.ACTIVATE): Status.ACTIVE,
    (Status.INACTIVE, Verb.FREEZE): CardNotActive,
    (Status.INACTIVE, Verb.UNFREEZE): CardNotFrozen,
    (Status.INACTIVE, Verb.CLOSE): Status.CLOSED,
    (Status.ACTIVE, Verb.ACTIVATE): CardAlreadyActive,
    (Status.ACTIVE, Verb.FREEZE): Status.FROZEN,
    (Status.ACTIVE, Verb.UNFREEZE): CardNotFrozen,
    (Status.ACTIVE, Verb.CLOSE): Status.CLOSED,
    (Status.FROZEN, Verb.ACTIVATE): CardIsFrozen,
    (Status.FROZEN, Verb.FREEZE): CardAlreadyFrozen,
    (Status.FROZEN, Verb.UNFREEZE): Status.ACTIVE,
    (Status.FROZEN, Verb.CLOSE): Status.CLOSED,
    (Status.CLOSED, Verb.ACTIVATE): CardIsClosed,
    (Status.CLOSED, Verb.FREEZE): CardIsClosed,
    (Status.CLOSED, Verb.UNFREEZE): CardIsClosed,
    (Status.CLOSED, Verb.CLOSE): CardIsClosed,
}


def next_status(status: Status, verb: Verb) -> Status:
    """Return the state that follows. Raises: the refusal that stands in the table."""
    outcome = TRANSITIONS[status, verb]
    if isinstance(outcome, Status):
        return outcome
    raise outcome


def require_open(status: Status) -> None:
    """Refuse to change anything else of a closed card. Raises: CardIsClosed."""
    if status is Status.CLOSED:
        raise CardIsClosed
