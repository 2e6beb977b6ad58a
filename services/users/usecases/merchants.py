"""What is done to a merchant: create and update. Other services keep copies, fed by the events."""

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from services.users.domain.grants import grant_of_caller, grant_of_permissions, require_within
from services.users.models import Merchant
from services.users.queries import visible_merchants
from shared import outbox
from shared.contracts.users import (
    MerchantCodeTaken,
    MerchantCreated,
    MerchantNotFound,
    MerchantUpdated,
    MerchantView,
)
from shared.ids import new_id
from shared.passport import Passport


def create_merchant(
    session: Session, passport: Passport, *, code: str, name: str, status: str = "active"
) -> MerchantView:
    """Add a merchant. Whoever sees only some merchants cannot, since the new one would not be among them.

    Raises, in order: GrantExceedsOwn, MerchantCodeTaken.
    Emits: MerchantCreated.
    """
    require_within(grant_of_permissions({}, merchants=None), grant_of_caller(passport))
    merchant = Merchant(id=new_id("mer"), code=code, name=name, status=status)
    session.add(merchant)
    _flush_code(session)
    session.refresh(merchant)
    outbox.add(
        session,
        MerchantCreated(merchant_id=merchant.id, code=code, name=name, status=status, version=merchant.version),
    )
    return merchant.view()


def update_merchant(
    session: Session, passport: Passport, *, merchant_id: str, changes: Mapping[str, str]
) -> MerchantView:
    """Change the given fields of a merchant: code, name, status.

    Raises, in order: MerchantNotFound, MerchantCodeTaken.
    Emits: MerchantUpdated, where something changed.   Locks: the merchant.
    """
    statement = sa.select(Merchant).where(Merchant.id == merchant_id, visible_merchants(passport))
    merchant = session.scalar(statement.with_for_update().execution_options(populate_existing=True))
    if merchant is None:
        raise MerchantNotFound()
    before = {"code": merchant.code, "name": merchant.name, "status": merchant.status}
    after = {field: changes.get(field, value) for field, value in before.items()}
    changed = {f: {"before": before[f], "after": after[f]} for f in before if before[f] != after[f]}
    if changed:
        merchant.code, merchant.name, merchant.status = after["code"], after["name"], after["status"]
        merchant.version, merchant.updated_at = merchant.version + 1, sa.func.now()
        _flush_code(session)
        session.refresh(merchant)
        outbox.add(
            session, MerchantUpdated(merchant_id=merchant.id, version=merchant.version, changes=changed, **after)
        )
    return merchant.view()


def _flush_code(session: Session) -> None:
    """Write the merchant. Raises: MerchantCodeTaken."""
    try:
        session.flush()
    except IntegrityError as error:
        if "uq_merchants_code" in str(error.orig):
            raise MerchantCodeTaken.of_field("code", MerchantCodeTaken.title) from None
        raise
