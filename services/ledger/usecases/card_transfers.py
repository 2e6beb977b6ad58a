"""Money between a merchant and a card: each transfer is decided once, for ever, and then only told again."""

from collections.abc import Sequence
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.card_transfers import changes_of
from services.ledger.domain.thresholds import Threshold
from services.ledger.models.card_transfers import card_transfers, outcome_view
from services.ledger.row_digests import inserting
from services.ledger.usecases.postings import post_within
from shared.contracts.ledger import CardTransferAltered, CardTransferOutcome, EntryView
from shared.contracts.users import MerchantNotFound
from shared.errors import Conflict
from shared.money import parse_minor
from shared.passport import Passport

_CLAIM = sa.text("select pg_advisory_xact_lock(hashtextextended('card_transfer ' || :transfer_id, 0))")

_KEEP = sa.text(inserting(card_transfers, now="created_at"))


def transfer_card_money(
    session: Session, passport: Passport, *, threshold: Threshold, transfer_id: str, merchant_id: str, **transfer: str
) -> CardTransferOutcome:
    """Move money between a merchant's account and a card's, or refuse to; both entries or none.

    transfer: `card_id`, `direction` (top_up or withdrawal), `amount` (positive), `currency`.
    Returns: what became of it; a refusal is an outcome too, and whoever asks again, however late, gets the first.
    Raises, in order: MerchantNotFound outside the caller's merchants; InvalidRequest; CardTransferAltered.
    Emits: BalancesChanged, LargeChangeDetected.
    Locks: the transfer's id, then the two accounts by ascending id.
    Idempotent: on `transfer_id`, for ever.
    """
    if not passport.sees(merchant_id):
        raise MerchantNotFound
    changes = changes_of(transfer_id=transfer_id, merchant_id=merchant_id, **transfer)
    minor = parse_minor(transfer["amount"], transfer["currency"])
    content: dict[str, Any] = transfer | {"transfer_id": transfer_id, "merchant_id": merchant_id, "amount": minor}
    session.execute(_CLAIM, {"transfer_id": transfer_id})
    known = session.execute(sa.select(card_transfers).where(card_transfers.c.transfer_id == transfer_id)).first()
    if known is not None:
        if any(getattr(known, name) != value for name, value in content.items()):
            raise CardTransferAltered
        return outcome_view(known)
    try:
        outcome = _places(post_within(session, passport, changes, threshold=threshold))
    except Conflict as refusal:
        outcome = {"refusal": orjson.dumps(refusal.to_wire()).decode()}
    row = session.execute(_KEEP, dict.fromkeys(card_transfers.c.keys()) | content | outcome).one()
    return outcome_view(row)


def _places(entries: Sequence[EntryView]) -> dict[str, Any]:
    """Return where the two entries of a transfer are."""
    by_holder = {entry["holder_type"]: entry for entry in entries}
    card, merchant = by_holder["card"], by_holder["merchant"]
    return {
        "card_account_id": int(card["entry_id"].split("_")[1]),
        "card_version": card["version"],
        "card_balance": parse_minor(card["balance"], card["currency"]),
        "merchant_account_id": int(merchant["entry_id"].split("_")[1]),
        "merchant_version": merchant["version"],
    }
