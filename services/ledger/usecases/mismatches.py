"""What people do to mismatches without moving money: reconcile, ignore, reopen; and many at once.

A mismatch is locked first, then its corrections, its order, its record, and the account last: always in this order.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.mismatches import RESOLUTIONS, Status, Verb, state_after
from services.ledger.domain.orders import check_reason
from services.ledger.models.entries import accounts
from services.ledger.models.mismatches import corrections, mismatch_history, mismatches
from services.ledger.models.orders import orders
from services.ledger.queries.pages import in_scope
from shared import outbox
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


def close_or_reopen(session: Session, passport: Passport, *, mismatch_id: str, verb: Verb, reason: str) -> str:
    """Reconcile, ignore or reopen a mismatch. Reopening one whose proposal waits takes the proposal back.

    Returns: its status.
    Raises, in order: InvalidRequest; MismatchNotFound; MismatchNotOpen, MismatchIsOpen, ProposalPending,
    CorrectionStands.
    Emits: MismatchReconciled, MismatchIgnored or MismatchReopened.
    Locks: the mismatch.
    """
    said = check_reason(reason, is_required=True) or ""
    mismatch = lock_mismatch(session, passport, mismatch_id)
    after = state_after(mismatch.status, verb)
    if mismatch.status == Status.PENDING_APPROVAL:
        void_proposal(session, mismatch_id)
    row = move_mismatch(session, passport, mismatch, after, act=verb.value, reason=said)
    told = _EVENTS[verb](
        mismatch_id=row.id,
        kind=row.kind,
        channel=row.channel,
        order_no=row.order_no,
        upstream_ref=row.upstream_ref,
        merchant_id=row.merchant_id,
        reason=said,
        changes={"status": {"before": mismatch.status, "after": row.status}},
    )
    outbox.add(session, told)
    return str(row.status)


def lock_mismatch(session: Session, passport: Passport, mismatch_id: str) -> Any:
    """Return a mismatch, locked. Raises: MismatchNotFound, also for one that the caller does not see."""
    query = sa.select(mismatches).where(mismatches.c.id == mismatch_id, *in_scope(passport, mismatches.c.merchant_id))
    row = session.execute(query.with_for_update()).first()
    if row is None:
        raise MismatchNotFound
    return row


def void_proposal(session: Session, mismatch_id: str) -> None:
    """Have the proposal that waits, if there is one, count for nothing."""
    waiting = [corrections.c.mismatch_id == mismatch_id, corrections.c.status == "proposed"]
    session.execute(sa.update(corrections).where(*waiting).values(status="void", decided_at=_NOW))


def move_mismatch(
    session: Session,
    passport: Passport,
    mismatch: Any,
    after: Status,
    *,
    act: str,
    reason: str | None,
    correction_id: str | None = None,
    **values: Any,
) -> Any:
    """Put a mismatch into a state, and note in its history what was done. Returns: its row."""
    values |= {"status": after.value, "resolution": RESOLUTIONS.get(after)}
    changing = (
        sa.update(mismatches)
        .where(mismatches.c.id == mismatch.id)
        .values(**values, version=mismatches.c.version + 1, updated_at=_NOW)
        .returning(mismatches)
    )
    row = session.execute(changing).one()
    session.execute(
        sa.insert(mismatch_history).values(
            mismatch_id=mismatch.id,
            act=act,
            status_before=mismatch.status,
            status_after=row.status,
            reason=reason,
            correction_id=correction_id,
            actor_id=passport.actor_id,
            actor_name=passport.actor_name,
            actor_type=passport.actor_type,
            request_id=passport.request_id,
        )
    )
    return row


def act_on_mismatches(
    session: Session,
    passport: Passport,
    *,
    ids: Sequence[str],
    moves_money: bool,
    act: Callable[[str], str],
) -> BulkView:
    """Do the same to many mismatches; each stands for itself, and what is refused leaves nothing behind.

    act: does it to the one with this id, and returns its status.
    Raises: InvalidRequest; MerchantMissing, upon which all of it is done again.
    Locks: the mismatches by ascending id; where money moves their orders and then the accounts of those as well, each
    by ascending id, so that nobody who locks one order and its account waits for us in a ring.
    """
    if not 1 <= len(ids) <= BULK_MISMATCHES_MAX or len(set(ids)) != len(ids):
        raise InvalidRequest.of_field("ids", f"Must be 1 to {BULK_MISMATCHES_MAX} different ids.")
    _lock_all(session, passport, ids, moves_money=moves_money)
    items = [_result(session, mismatch_id, act) for mismatch_id in ids]
    refused = sum("error" in item for item in items)
    return {"items": items, "done": len(items) - refused, "refused": refused}


def _result(session: Session, mismatch_id: str, act: Callable[[str], str]) -> BulkResultView:
    savepoint = session.begin_nested()
    try:
        status = act(mismatch_id)
    except MerchantMissing:
        raise
    except ServiceError as error:
        savepoint.rollback()
        return {"id": mismatch_id, "error": error.view()}
    savepoint.commit()
    return {"id": mismatch_id, "status": status}


def _lock_all(session: Session, passport: Passport, ids: Sequence[str], *, moves_money: bool) -> None:
    mine = [mismatches.c.id.in_(ids), *in_scope(passport, mismatches.c.merchant_id)]
    session.execute(sa.select(mismatches.c.id).where(*mine).order_by(mismatches.c.id).with_for_update())
    if not moves_money:
        return
    subject = sa.select(mismatches.c.order_no, mismatches.c.channel).where(*mine)
    of_these = sa.tuple_(orders.c.order_no, orders.c.channel).in_(subject)
    session.execute(sa.select(orders.c.id).where(of_these).order_by(orders.c.id).with_for_update())
    holder = (orders.c.merchant_id, orders.c.holder_type, orders.c.holder_id, orders.c.currency)
    own = (accounts.c.merchant_id, accounts.c.holder_type, accounts.c.holder_id, accounts.c.currency)
    of_holders = sa.tuple_(*own).in_(sa.select(*holder).where(of_these))
    session.execute(
        sa.select(accounts.c.id)
        .where(of_holders, accounts.c.wallet == "balance")
        .order_by(accounts.c.id)
        .with_for_update()
    )
