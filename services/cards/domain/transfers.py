"""Which way money goes between a merchant and a card, and in which states of the card it may."""

from enum import StrEnum

from services.cards.domain.states import Status
from shared.contracts.cards import CardIsClosed, CardIsFrozen, CardNotActive
from shared.errors import Conflict


class Direction(StrEnum):
    """Whose account a transfer adds to: the card's, or the merchant's again."""

    TOP_UP = "top_up"
    WITHDRAWAL = "withdrawal"


class State(StrEnum):
    """How far a transfer is. Only the ledger's own word makes it posted or refused."""

    REQUESTED = "requested"
    POSTED = "posted"
    REFUSED = "refused"


# A frozen card takes no money, but gives back what it has, so that it can be emptied and closed.
REFUSALS: dict[tuple[Status, Direction], type[Conflict] | None] = {
    (Status.INACTIVE, Direction.TOP_UP): CardNotActive,
    (Status.INACTIVE, Direction.WITHDRAWAL): CardNotActive,
    (Status.ACTIVE, Direction.TOP_UP): None,
    (Status.ACTIVE, Direction.WITHDRAWAL): None,
    (Status.FROZEN, Direction.TOP_UP): CardIsFrozen,
    (Status.FROZEN, Direction.WITHDRAWAL): None,
    (Status.CLOSED, Direction.TOP_UP): CardIsClosed,
    (Status.CLOSED, Direction.WITHDRAWAL): CardIsClosed,
}


def require_transferable(status: Status, direction: Direction) -> None:
    """Refuse a transfer that the card's state does not allow. Raises: the refusal that stands in the table."""
    refusal = REFUSALS[status, direction]
    if refusal is not None:
        raise refusal
