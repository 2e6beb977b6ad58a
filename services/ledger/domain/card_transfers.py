"""A transfer between a merchant and a card as the two changes that it is: what one account loses the other gets."""

from typing import Final

from services.ledger.domain.balance_types import BALANCE_TYPES
from services.ledger.domain.changes import AMOUNT_MINOR_MAX, Change
from shared.errors import InvalidRequest
from shared.money import InvalidMoney, parse_minor

TYPES: Final = {"top_up": BALANCE_TYPES[511], "withdrawal": BALANCE_TYPES[512]}


def changes_of(
    *, transfer_id: str, card_id: str, merchant_id: str, direction: str, amount: str, currency: str
) -> tuple[Change, Change]:
    """Return a transfer's changes, that of the account which loses first. Both name the transfer.

    Raises, in order: InvalidRequest for another direction; InvalidMoney.
    """
    balance_type = TYPES.get(direction)
    if balance_type is None:
        raise InvalidRequest.of_field("direction", f"Must be one of: {', '.join(TYPES)}.")
    minor = parse_minor(amount, currency)
    if not 0 < minor <= AMOUNT_MINOR_MAX:
        raise InvalidMoney.of_field("amount", "Must be more than zero, and not too large.")
    note = f"{transfer_id} {card_id}"
    merchant, card = ("merchant", merchant_id), ("card", card_id)
    losing, getting = (merchant, card) if direction == "top_up" else (card, merchant)
    return (
        Change(merchant_id, *losing, balance_type, -minor, currency, None, None, note, None),
        Change(merchant_id, *getting, balance_type, minor, currency, None, None, note, None),
    )
