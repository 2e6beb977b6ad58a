"""Correcting mismatches: proposed, approved by a second person above a threshold, applied once, reversed.

What a correction changes is worked out by `domain.corrections` from both sides as they are. It is worked out again when
it is approved: if it comes out differently, the approval is of something that nobody looked at, and is refused.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain import corrections as domain
from services.ledger.domain.corrections import Content, Sides
from services.ledger.domain.entries import Account, Maker, enter
from services.ledger.domain.mismatches import Status, Verb, state_after
from services.ledger.domain.orders import check_reason
from services.ledger.models.entries import accounts
from services.ledger.models.mismatches import corrections, mismatches
from services.ledger.models.statements import upstream_records
from services.ledger.queries.corrections import content_view, get_correction
from services.ledger.queries.pages import in_scope
from services.ledger.usecases.correction_effects import Correction, apply_correction, changes_of, told_of
from services.ledger.usecases.correction_sides import (
    NewOrder,
    Terms,
    number_to_make,
    order_side,
    order_to_make,
    sides_of,
)
from services.ledger.usecases.mismatch_batches import Batch
from services.ledger.usecases.mismatches import lock_mismatch, move_mismatch, void_proposal
from shared.contracts.mismatches import (
    CorrectionApproved,
    CorrectionNotApplied,
    CorrectionNotFound,
    CorrectionPreview,
    CorrectionProposed,
    CorrectionRejected,
    CorrectionView,
    FourEyes,
    MismatchNotFound,
    MismatchOutdated,
    NoProposal,
    NotCorrectable,
    OrderTermsRequired,
    ProposalChanged,
    ProposalOutdated,
    ProposalPending,
)
from shared.errors import ErrorView, InvalidRequest, ServiceError
from shared.ids import new_id
from shared.money import format_minor
from shared.passport import Passport

_NOW: Final = sa.func.clock_timestamp()


def preview_correction(
    session: Session,
    passport: Passport,
    *,
    mismatch_id: str,
    to: str,
    reason: str,
    new_order: NewOrder,
    terms: Terms,
) -> CorrectionPreview:
    """Return what a correction would change, without changing anything.

    Raises, in order: InvalidRequest; MismatchNotFound; MismatchNotOpen, CorrectionStands; MismatchOutdated;
    OrderTermsRequired; MerchantNotFound; OrderNumberTaken; NotCorrectable.
    """
    said = check_reason(reason, is_required=True) or ""
    query = sa.select(mismatches).where(mismatches.c.id == mismatch_id, *in_scope(passport, mismatches.c.merchant_id))
    mismatch = session.execute(query).first()
    if mismatch is None:
        raise MismatchNotFound
    state_after(mismatch.status, Verb.CORRECT)
    sides = sides_of(session, mismatch, is_locked=False)
    content = _plan(session, passport, Batch(session), mismatch, sides, to, said, new_order, terms)
    view = content_view(content)
    refusal = _balances(session, passport, content, view["entries"])
    return {
        **view,
        "content_sha256": domain.digest_of(content).hex(),
        "needs_approval": domain.needs_approval(content, terms.approval_threshold),
        "refusal": refusal,
    }


def _balances(session: Session, passport: Passport, content: Content, entries: Sequence[Any]) -> ErrorView | None:
    """Write into the entries which balance each would lead to. Returns: why they would be refused, if they would."""
    if not entries:
        return None
    changes = changes_of(content)
    c = accounts.c
    one = changes[0]
    holder = [c.merchant_id == one.merchant_id, c.holder_type == one.holder_type, c.holder_id == one.holder_id]
    query = sa.select(c.balance, c.held).where(*holder, c.currency == one.currency, c.wallet == "balance")
    row = session.execute(query).first()
    account = Account(0, one.merchant_id, one.holder_type, one.holder_id, one.currency)
    if row is not None:
        freed = content["order"]["before"]["held"] - content["order"]["after"]["held"]
        account.balance, account.held = row.balance, row.held - freed
    maker = Maker(passport.actor_id, passport.actor_name, passport.actor_type, passport.request_id)
    try:
        for change, view in zip(changes, entries, strict=True):
            view["balance"] = format_minor(
                enter(account, change, maker, at_microseconds=0).balance_after, change.currency
            )
    except ServiceError as refusal:
        return refusal.view()
    return None


def correct_mismatch(
    session: Session,
    passport: Passport,
    batch: Batch,
    *,
    mismatch_id: str,
    to: str,
    reason: str,
    new_order: NewOrder,
    terms: Terms,
) -> str:
    """Correct a mismatch at once, or propose to where a second person is needed; a proposal replaces the one before.

    Returns: the mismatch's status.
    Raises, in order: InvalidRequest; MismatchNotFound; MismatchNotOpen, CorrectionStands; MismatchOutdated;
    OrderTermsRequired; MerchantNotFound; NotCorrectable; FourEyes for a program whose proposal would wait;
    OrderNumberTaken; InsufficientBalance, BalanceTooLarge.
    Emits: CorrectionProposed; or CorrectionApplied, BalancesChanged, LargeChangeDetected.
    Locks: the mismatch, the order, the record, the account.
    """
    said = check_reason(reason, is_required=True) or ""
    mismatch = lock_mismatch(session, passport, batch, mismatch_id)
    state_after(mismatch.status, Verb.CORRECT)
    sides = batch.sides(mismatch_id) or sides_of(session, mismatch, is_locked=True)
    content = _plan(session, passport, batch, mismatch, sides, to, said, new_order, terms)
    if mismatch.status == Status.PENDING_APPROVAL:
        void_proposal(session, mismatch_id)
    _, status = _propose_or_apply(session, passport, batch, mismatch, content, terms)
    return status


def approve_correction(
    session: Session,
    passport: Passport,
    batch: Batch,
    *,
    mismatch_id: str,
    content_sha256: str | None,
    reason: str | None,
    terms: Terms,
) -> str:
    """Approve the proposal that waits, which is thereby applied, once.

    content_sha256: which proposal is meant, in hexadecimal; None is whichever waits.
    Returns: the mismatch's status.
    Raises, in order: InvalidRequest; MismatchNotFound; NoProposal; FourEyes; ProposalChanged; ProposalOutdated;
    OrderNumberTaken; InsufficientBalance, BalanceTooLarge.
    Emits: CorrectionApproved; CorrectionApplied or CorrectionReversed; BalancesChanged, LargeChangeDetected.
    Locks: the mismatch, the proposal, the order, the record, the account.
    """
    said = check_reason(reason, is_required=False)
    mismatch = lock_mismatch(session, passport, batch, mismatch_id)
    state_after(mismatch.status, Verb.APPROVE)
    proposal = _lock_proposal(session, passport, mismatch)
    if content_sha256 is not None and content_sha256 != proposal.content_sha256.hex():
        raise ProposalChanged(content_sha256=proposal.content_sha256.hex())
    again = _plan_again(session, passport, batch, mismatch, proposal, terms)
    if domain.digest_of(again) != bytes(proposal.content_sha256):
        raise ProposalOutdated
    _decide(session, passport, proposal, said)
    move_mismatch(
        passport,
        batch,
        mismatch,
        Status(mismatch.status),
        act="approve",
        reason=said,
        correction_id=proposal.id,
    )
    correction = _written(proposal)
    batch.tell(told_of(CorrectionApproved, mismatch, correction, proposal.content, said or proposal.reason))
    return apply_correction(session, passport, batch, mismatch, correction, again, terms)


def reject_correction(session: Session, passport: Passport, batch: Batch, *, mismatch_id: str, reason: str) -> str:
    """Reject the proposal that waits: the mismatch is as it was before.

    Returns: its status.
    Raises, in order: InvalidRequest; MismatchNotFound; NoProposal; FourEyes.
    Emits: CorrectionRejected.
    Locks: the mismatch, the proposal.
    """
    said = check_reason(reason, is_required=True) or ""
    mismatch = lock_mismatch(session, passport, batch, mismatch_id)
    after = state_after(mismatch.status, Verb.REJECT)
    proposal = _lock_proposal(session, passport, mismatch)
    _decide(session, passport, proposal, said, status="rejected")
    move_mismatch(passport, batch, mismatch, after, act="reject", reason=said, correction_id=proposal.id)
    batch.tell(told_of(CorrectionRejected, mismatch, _written(proposal), proposal.content, said))
    return after.value


def _written(proposal: Any) -> Correction:
    digest = bytes(proposal.content_sha256)
    return Correction(id=proposal.id, content_sha256=digest, reversal_of=proposal.reversal_of, is_written=True)


def reverse_correction(
    session: Session, passport: Passport, *, correction_id: str, reason: str, terms: Terms
) -> CorrectionView:
    """Take a correction back by new entries, at once or when a second person approves; its mismatch is open again.

    Returns: the correction that does it.
    Raises, in order: InvalidRequest; CorrectionNotFound; CorrectionNotApplied; ProposalPending; ProposalOutdated;
    FourEyes for a program whose proposal would wait; InsufficientBalance, BalanceTooLarge.
    Emits: CorrectionProposed; or CorrectionReversed, BalancesChanged, LargeChangeDetected.
    Locks: the mismatch, the correction, the order, the records, the account.
    """
    said = check_reason(reason, is_required=True) or ""
    known = get_correction(session, passport, correction_id=correction_id)
    batch = Batch(session)
    mismatch = lock_mismatch(session, passport, batch, known["mismatch_id"])
    done = _lock_correction(session, correction_id)
    if done.status != "applied" or done.reversal_of is not None:
        raise CorrectionNotApplied(status=done.status)
    state_after(mismatch.status, Verb.REVERSE)
    if _waiting(session, mismatch.id) is not None:
        raise ProposalPending
    content = _plan_reversal(session, batch, mismatch, done, said, terms)
    reversal_id, _ = _propose_or_apply(session, passport, batch, mismatch, content, terms)
    batch.flush()
    return get_correction(session, passport, correction_id=reversal_id)


def _plan(
    session: Session,
    passport: Passport,
    batch: Batch,
    mismatch: Any,
    sides: Sides,
    to: str,
    reason: str,
    new_order: NewOrder,
    terms: Terms,
) -> Content:
    if to not in ("upstream", "local"):
        raise InvalidRequest.of_field("to", "Must be upstream or local.")
    order_no = number_to_make(session, mismatch, sides.order, new_order) if to == "upstream" else None
    if order_no is not None:
        made = order_to_make(session, passport, mismatch, sides.record, new_order, terms, order_no=order_no)
        sides = replace(sides, order=made)
    return domain.plan(sides, to=to, reason=reason, day_of=batch.day_of(terms.zone_name))


def _plan_again(
    session: Session, passport: Passport, batch: Batch, mismatch: Any, proposal: Any, terms: Terms
) -> Content:
    """Return what the proposal comes to now. Raises: ProposalOutdated."""
    if proposal.reversal_of is not None:
        done = _lock_correction(session, proposal.reversal_of)
        if done.status != "applied":
            raise ProposalOutdated
        return _plan_reversal(session, batch, mismatch, done, proposal.reason, terms)
    order = proposal.content["order"]
    new_order = NewOrder(**{n: order[n] for n in ("merchant_id", "user_id", "kind")}) if order else NewOrder()
    sides = batch.sides(mismatch.id) or sides_of(session, mismatch, is_locked=True)
    try:
        return _plan(session, passport, batch, mismatch, sides, proposal.direction, proposal.reason, new_order, terms)
    except (MismatchOutdated, NotCorrectable, OrderTermsRequired):
        raise ProposalOutdated from None


def _plan_reversal(session: Session, batch: Batch, mismatch: Any, done: Any, reason: str, terms: Terms) -> Content:
    order_no = done.content["order"]["order_no"] if done.content["order"] else None
    order = order_side(session, order_no, mismatch.channel, is_locked=True) if order_no else None
    content = domain.plan_reversal(
        done.content,
        correction_id=done.id,
        order=order,
        reason=reason,
        applied_at=done.applied_at,
        day_of=batch.day_of(terms.zone_name),
    )
    for record in content["records"]:
        _check_record(session, record, done.id)
    return content


def _check_record(session: Session, record: Content, correction_id: str) -> None:
    """Refuse to change a record that is not as its correction left it. Raises: ProposalOutdated."""
    query = sa.select(upstream_records).where(upstream_records.c.id == record["id"]).with_for_update()
    row = session.execute(query).one()
    voided_by = correction_id if record["before"]["is_void"] else None
    if row.voided_by != voided_by or row.order_no != record["before"]["order_no"]:
        raise ProposalOutdated


_PROPOSE: Final = sa.insert(corrections).values(status="proposed", created_at=_NOW)
_APPLY: Final = sa.insert(corrections).values(status="applied", created_at=_NOW, applied_at=_NOW)


def _propose_or_apply(
    session: Session, passport: Passport, batch: Batch, mismatch: Any, content: Content, terms: Terms
) -> tuple[str, str]:
    """Write down a correction, and apply it unless a second person is needed.

    Returns: its id, and the mismatch's status.
    """
    waits = domain.needs_approval(content, terms.approval_threshold)
    if waits:
        _require_person(passport)
    correction = Correction(
        id=new_id("cor"),
        content_sha256=domain.digest_of(content),
        reversal_of=content["reverses"],
        is_written=False,
    )
    written = {
        "id": correction.id,
        "mismatch_id": mismatch.id,
        "direction": content["to"],
        "content": content,
        "content_sha256": correction.content_sha256,
        "reason": content["reason"],
        "reversal_of": correction.reversal_of,
        "proposed_by": passport.actor_id,
        "proposed_by_name": passport.actor_name,
    }
    batch.add(_PROPOSE if waits else _APPLY, written)
    if not waits:
        return correction.id, apply_correction(session, passport, batch, mismatch, correction, content, terms)
    is_standing = content["reverses"] is not None and mismatch.status == Status.CORRECTED
    after = Status.CORRECTED if is_standing else state_after(mismatch.status, Verb.PROPOSE)
    move_mismatch(
        passport, batch, mismatch, after, act="propose", reason=content["reason"], correction_id=correction.id
    )
    batch.tell(told_of(CorrectionProposed, mismatch, correction, content, content["reason"]))
    return correction.id, after.value


def _require_person(passport: Passport) -> None:
    """Refuse a program: nobody knows who is behind a key, so it is neither the first person nor the second.

    Raises: FourEyes.
    """
    if passport.actor_type != "user":
        raise FourEyes("Two people decide on this, each signed in; an API key is nobody.")


def _waiting(session: Session, mismatch_id: str) -> Any:
    c = corrections.c
    query = sa.select(corrections).where(c.mismatch_id == mismatch_id, c.status == "proposed")
    return session.execute(query.with_for_update()).first()


def _lock_proposal(session: Session, passport: Passport, mismatch: Any) -> Any:
    """Return the proposal that waits, for somebody else than who proposed it. Raises: NoProposal, FourEyes."""
    proposal = _waiting(session, mismatch.id)
    if proposal is None:
        raise NoProposal(status=mismatch.status)
    _require_person(passport)
    if proposal.proposed_by == passport.actor_id:
        raise FourEyes("Somebody else than who proposed it decides.")
    return proposal


def _lock_correction(session: Session, correction_id: str) -> Any:
    row = session.execute(sa.select(corrections).where(corrections.c.id == correction_id).with_for_update()).first()
    if row is None:
        raise CorrectionNotFound
    return row


def _decide(session: Session, passport: Passport, proposal: Any, reason: str | None, **values: Any) -> None:
    values |= {
        "decided_by": passport.actor_id,
        "decided_by_name": passport.actor_name,
        "decided_reason": reason,
        "decided_at": _NOW,
    }
    session.execute(sa.update(corrections).where(corrections.c.id == proposal.id).values(values))
