"""What people do to mismatches without moving money: reconcile, ignore, reopen; and many at once.

A mismatch is locked first, then its corrections, its order, its record, and the account last: always in this order.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.corrections import Sides
from services.ledger.domain.mismatches import RESOLUTIONS, Status, Verb, state_after
from services.ledger.domain.orders import check_reason
from services.ledger.models.entries import accounts
from services.ledger.models.mismatches import corrections, mismatch_history, mismatches
from services.ledger.queries.pages import in_scope
from services.ledger.usecases.correction_sides import read_sides
from services.ledger.usecases.mismatch_batches import Batch
from shared.contracts.mismatches import (
    BULK_MISMATCHES_MAX,
    BulkResultView,
    BulkView,
    MismatchIgnored,
    MismatchNotFound,
    MismatchReconciled,
    MismatchReopened,
)
from shared.contracts.users import MerchantMissing
from shared.errors import InvalidRequest, ServiceError
from shared.passport import Passport

_NOW: Final = sa.func.clock_timestamp()
_EVENTS: Final[dict[Verb, type[Any]]] = {
    Verb.RECONCILE: MismatchReconciled,
    Verb.IGNORE: MismatchIgnored,
    Verb.REOPEN: MismatchReopened,
}


def close_or_reopen(
    session: Session, passport: Passport, batch: Batch, *, mismatch_id: str, verb: Verb, reason: str
) -> str:
    """Reconcile, ignore or reopen a mismatch. Reopening one whose proposal waits takes the proposal back.

    Returns: its status.
    Raises, in order: InvalidRequest; MismatchNotFound; MismatchNotOpen, MismatchIsOpen, ProposalPending,
    CorrectionStands.
    Emits: MismatchReconciled, MismatchIgnored or MismatchReopened.
    Locks: the mismatch.
    """
    said = check_reason(reason, is_required=True) or ""
    mismatch = lock_mismatch(session, passport, batch, mismatch_id)
    after = state_after(mismatch.status, verb)
    if mismatch.status == Status.PENDING_APPROVAL:
        void_proposal(session, mismatch_id)
    move_mismatch(passport, batch, mismatch, after, act=verb.value, reason=said)
    told = _EVENTS[verb](
        mismatch_id=mismatch.id,
        kind=mismatch.kind,
        channel=mismatch.channel,
        order_no=mismatch.order_no,
        upstream_ref=mismatch.upstream_ref,
        merchant_id=mismatch.merchant_id,
        reason=said,
        changes={"status": {"before": mismatch.status, "after": after.value}},
    )
    batch.tell(told)
    return after.value


def lock_mismatch(session: Session, passport: Passport, batch: Batch, mismatch_id: str) -> Any:
    """Return a mismatch, locked. Raises: MismatchNotFound, also for one that the caller does not see."""
    known = batch.mismatch(mismatch_id)
    if known is not None:
        return known
    query = sa.select(mismatches).where(mismatches.c.id == mismatch_id, *in_scope(passport, mismatches.c.merchant_id))
    row = session.execute(query.with_for_update()).first()
    if row is None:
        raise MismatchNotFound
    return row


def void_proposal(session: Session, mismatch_id: str) -> None:
    """Have the proposal that waits, if there is one, count for nothing."""
    waiting = [corrections.c.mismatch_id == mismatch_id, corrections.c.status == "proposed"]
    session.execute(sa.update(corrections).where(*waiting).values(status="void", decided_at=_NOW))


_MOVE: Final = (
    sa.update(mismatches)
    .where(mismatches.c.id == sa.bindparam("mismatch_id"))
    .values(
        status=sa.bindparam("after"),
        resolution=sa.bindparam("resolved"),
        merchant_id=sa.func.coalesce(mismatches.c.merchant_id, sa.bindparam("made_for", type_=sa.Text)),
        version=mismatches.c.version + 1,
        updated_at=_NOW,
    )
)
_NOTE: Final = sa.insert(mismatch_history)


def move_mismatch(
    passport: Passport,
    batch: Batch,
    mismatch: Any,
    after: Status,
    *,
    act: str,
    reason: str | None,
    correction_id: str | None = None,
    made_for: str | None = None,
) -> None:
    """Put a mismatch into a state, and note in its history what was done.

    made_for: the merchant of the order that was made for it, where it has none yet.
    """
    moved = {
        "mismatch_id": mismatch.id,
        "after": after.value,
        "resolved": RESOLUTIONS.get(after),
        "made_for": made_for,
    }
    noted = {
        "mismatch_id": mismatch.id,
        "act": act,
        "status_before": mismatch.status,
        "status_after": after.value,
        "reason": reason,
        "correction_id": correction_id,
        "actor_id": passport.actor_id,
        "actor_name": passport.actor_name,
        "actor_type": passport.actor_type,
        "request_id": passport.request_id,
    }
    batch.add(_MOVE, moved)
    batch.add(_NOTE, noted)


def act_on_mismatches(
    session: Session,
    passport: Passport,
    *,
    ids: Sequence[str],
    act: Callable[[Batch, str], str],
    is_of_money: bool,
) -> BulkView:
    """Do the same to many mismatches; each stands for itself, and what is refused leaves nothing behind.

    act: does it, in a batch, to the one with this id, and returns its status.
    Raises: InvalidRequest; MerchantMissing, upon which all of it is done again.
    Locks: the mismatches by ascending id; where money moves their orders, then their records, and then the accounts of
    those orders as well, each by ascending id, so that nobody who locks one order and its account waits for us in a
    ring.
    """
    if not 1 <= len(ids) <= BULK_MISMATCHES_MAX or len(set(ids)) != len(ids):
        raise InvalidRequest.of_field("ids", f"Must be 1 to {BULK_MISMATCHES_MAX} different ids.")
    mine = [mismatches.c.id.in_(ids), *in_scope(passport, mismatches.c.merchant_id)]
    rows = session.execute(sa.select(mismatches).where(*mine).order_by(mismatches.c.id).with_for_update()).all()
    batch = Batch(session)
    batch.know({row.id: row for row in rows}, _sides_of(session, rows) if is_of_money else {})
    items = [_result(batch, mismatch_id, act) for mismatch_id in ids]
    batch.flush()
    refused = sum("error" in item for item in items)
    return {"items": items, "done": len(items) - refused, "refused": refused}


def _result(batch: Batch, mismatch_id: str, act: Callable[[Batch, str], str]) -> BulkResultView:
    try:
        with batch.one(mismatch_id):
            status = act(batch, mismatch_id)
    except MerchantMissing:
        raise
    except ServiceError as error:
        return {"id": mismatch_id, "error": error.view()}
    return {"id": mismatch_id, "status": status}


def _sides_of(session: Session, rows: Sequence[Any]) -> dict[str, Sides]:
    """Return both sides of all mismatches, locked, and the accounts as well."""
    found = dict(zip((row.id for row in rows), read_sides(session, rows, is_locked=True), strict=True))
    holders = {
        (order.merchant_id, "merchant" if order.user_id is None else "user", order.user_id or order.merchant_id,
         order.currency)
        for order in (sides.order for sides in found.values())
        if order is not None
    }  # fmt: skip
    own = sa.tuple_(accounts.c.merchant_id, accounts.c.holder_type, accounts.c.holder_id, accounts.c.currency)
    locking = sa.select(accounts.c.id).where(own.in_(holders), accounts.c.wallet == "balance")
    session.execute(locking.order_by(accounts.c.id).with_for_update())
    return found
