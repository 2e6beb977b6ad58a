"""What can be done to BIN ranges, and which range governs the making of a card."""

from typing import Any

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.cards.bins.models import BinRange
from services.cards.bins.queries import lock_bin
from services.cards.domain import numbers
from shared import outbox
from shared.contracts.bins import BinCreated, BinDisabled, BinReserved, BinTaken, BinUpdated, BinView
from shared.copies import require_merchant
from shared.errors import PermissionDenied
from shared.passport import Passport

ACTIVE, DISABLED = STATUSES = ("active", "disabled")


def create_bin(
    session: Session,
    passport: Passport,
    *,
    bin: str,
    brand: str | None = None,
    length: int | None = None,
    status: str = ACTIVE,
    merchant_id: str | None = None,
) -> BinView:
    """Register a BIN range.

    brand, length: of its numbers; None for those that its first digits say.
    Raises, in order: InvalidBin, InvalidRequest for the brand or length, PermissionDenied for everybody's range by
    somebody who sees some merchants only, MerchantNotFound, BinTaken.
    Emits: BinCreated.
    """
    wanted_brand = numbers.brand_of(numbers.parse_bin(bin)) if brand is None else numbers.parse_brand(brand)
    wanted_length = numbers.usual_length(wanted_brand) if length is None else numbers.parse_length(length)
    _require_merchant_or_all(session, passport, merchant_id)
    making = (
        insert(BinRange)
        .values(bin=bin, brand=wanted_brand, length=wanted_length, status=status, merchant_id=merchant_id)
        .on_conflict_do_nothing(constraint="uq_bin_ranges_bin")
        .returning(BinRange)
    )
    row: BinRange | None = session.scalar(making)
    if row is None:
        raise BinTaken
    facts = {"bin": bin, "brand": wanted_brand, "status": status}
    outbox.add(session, BinCreated(**facts, length=wanted_length, merchant_id=merchant_id))
    return row.view()


def update_bin(session: Session, passport: Passport, *, bin: str, **fields: Any) -> BinView:
    """Change a range's brand, length, status or merchant; what is not named stays.

    fields: of those four; the merchant may be None for everybody.
    Raises, in order: BinNotFound; InvalidRequest for the brand or length; PermissionDenied for what is everybody's,
    by somebody who sees some merchants only; MerchantNotFound.
    Emits: BinUpdated, when something changed.
    """
    row = lock_bin(session, passport, bin)
    if (brand := fields.get("brand")) is not None:
        numbers.parse_brand(brand)
    if (length := fields.get("length")) is not None:
        numbers.parse_length(length)
    _require_merchant_or_all(session, passport, row.merchant_id)
    _require_merchant_or_all(session, passport, fields.get("merchant_id", row.merchant_id))
    changes = {}
    for name, value in fields.items():
        if (before := getattr(row, name)) != value:
            setattr(row, name, value)
            changes[name] = {"before": before, "after": value}
    if changes:
        row.updated_at = func.clock_timestamp()
        session.flush()
        session.refresh(row)
        outbox.add(session, BinUpdated(bin=bin, merchant_id=row.merchant_id, changes=changes))
    return row.view()


def _require_merchant_or_all(session: Session, passport: Passport, merchant_id: str | None) -> None:
    if merchant_id is not None:
        require_merchant(session, passport, merchant_id)
    elif passport.merchants is not None:
        raise PermissionDenied("Only somebody who sees all merchants may see to everybody's BINs.")


def require_open_range(found: BinRange | None, *, merchant_id: str | None) -> None:
    """Refuse to make a card of this merchant under a range that is not for it; what is not registered is for all.

    Raises: BinDisabled, BinReserved.
    """
    if found is not None and found.status == DISABLED:
        raise BinDisabled
    if found is not None and found.merchant_id not in (None, merchant_id):
        raise BinReserved
