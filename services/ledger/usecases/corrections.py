"""Correcting mismatches: proposed, approved by a second person above a threshold, applied once, reversed.

What a correction changes is worked out by `domain.corrections` from both sides as they are. It is worked out again when
it is approved: if it comes out differently, the approval is of something that nobody looked at, and is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain import corrections as domain
from services.ledger.domain.balance_types import BALANCE_TYPES
from services.ledger.domain.changes import Change
from services.ledger.domain.channels import fee_of
from services.ledger.domain.corrections import Content, OrderSide, RecordSide, Sides
from services.ledger.domain.entries import Account, Maker, enter
from services.ledger.domain.mismatches import Status, Verb, state_after
from services.ledger.domain.orders import REFUNDABLE, check_order, check_reason
from services.ledger.domain.thresholds import Threshold
from services.ledger.models.entries import accounts
from services.ledger.models.mismatches import correction_entries, corrections, mismatches, records
from services.ledger.models.orders import order_user_id, orders
from services.ledger.posting import Posting, PostingRaced, post
from services.ledger.queries.corrections import changed_fields, content_view, get_correction
from services.ledger.queries.mismatches import get_mismatch
from services.ledger.queries.orders import given_back
from services.ledger.queries.pages import in_scope
from services.ledger.usecases.mismatches import lock_mismatch, move_mismatch, void_proposal
from services.ledger.usecases.orders import hold, note_act, rate_in_force
from shared import outbox
from shared.contracts.ledger import ErrorView, OrderNumberTaken
from shared.contracts.mismatches import (
    CorrectionApplied,
    CorrectionApproved,
    CorrectionNotApplied,
    CorrectionNotFound,
    CorrectionPreview,
    CorrectionProposed,
    CorrectionRejected,
    CorrectionReversed,
    CorrectionView,
    FourEyes,
    MismatchDetailView,
    MismatchNotFound,
    MismatchOutdated,
    NoProposal,
    NotCorrectable,
    OrderTermsRequired,
    ProposalChanged,
    ProposalOutdated,
    ProposalPending,
)
from shared.copies import require_merchant
from shared.errors import InvalidRequest, ServiceError, Unavailable
from shared.events import Event
from shared.ids import new_id
from shared.money import format_minor, fraction_digits
from shared.passport import Passport
from shared.rpc.wire import current_call
from shared.times import parse_rfc3339, rfc3339

ATTEMPTS_MAX: Final = 5
_NOW: Final = sa.func.clock_timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """By which settings corrections go: the calendar's zone, and from what amount on what needs more eyes.

    approval_threshold: the parameter `ledger.correction_approval_threshold`, a decimal string.
    large_change: the parameter `ledger.large_change_threshold`.
    default_fee_percent: the parameter `ledger.order_fee_percent`, for an order that a correction makes.
    """

    zone_name: str
    approval_threshold: str
    large_change: Threshold
    default_fee_percent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOrder:
    """Whose the order is that a correction makes, where we have none."""

    merchant_id: str | None = None
    user_id: str | None = None
    kind: str | None = None


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
    OrderTermsRequired; MerchantNotFound; NotCorrectable.
    """
    said = check_reason(reason, is_required=True) or ""
    query = sa.select(mismatches).where(mismatches.c.id == mismatch_id, *in_scope(passport, mismatches.c.merchant_id))
    mismatch = session.execute(query).first()
    if mismatch is None:
        raise MismatchNotFound
    state_after(mismatch.status, Verb.CORRECT)
    content = _plan(session, passport, mismatch, to, said, new_order, terms, is_locked=False)
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
    changes = _changes(content)
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
        return {"code": refusal.code, "title": refusal.title, "detail": refusal.detail, "errors": refusal.errors}
    return None


def correct_mismatch(
    session: Session,
    passport: Passport,
    *,
    mismatch_id: str,
    to: str,
    reason: str,
    new_order: NewOrder,
    terms: Terms,
) -> MismatchDetailView:
    """Correct a mismatch at once, or propose to where a second person is needed; a proposal replaces the one before.

    Raises, in order: InvalidRequest; MismatchNotFound; MismatchNotOpen, CorrectionStands; MismatchOutdated;
    OrderTermsRequired; MerchantNotFound; NotCorrectable; FourEyes for a program whose proposal would wait;
    OrderNumberTaken; InsufficientBalance, BalanceTooLarge.
    Emits: CorrectionProposed; or CorrectionApplied, BalancesChanged, LargeChangeDetected.
    Locks: the mismatch, the order, the record, the account.
    """
    said = check_reason(reason, is_required=True) or ""
    mismatch = lock_mismatch(session, passport, mismatch_id)
    state_after(mismatch.status, Verb.CORRECT)
    content = _plan(session, passport, mismatch, to, said, new_order, terms, is_locked=True)
    void_proposal(session, mismatch_id)
    _propose_or_apply(session, passport, mismatch, content, terms)
    return get_mismatch(session, passport, mismatch_id=mismatch_id)


def approve_correction(
    session: Session,
    passport: Passport,
    *,
    mismatch_id: str,
    content_sha256: str | None,
    reason: str | None,
    terms: Terms,
) -> MismatchDetailView:
    """Approve the proposal that waits, which is thereby applied, once.

    content_sha256: which proposal is meant, in hexadecimal; None is whichever waits.
    Raises, in order: InvalidRequest; MismatchNotFound; NoProposal; FourEyes; ProposalChanged; ProposalOutdated;
    OrderNumberTaken; InsufficientBalance, BalanceTooLarge.
    Emits: CorrectionApproved; CorrectionApplied or CorrectionReversed; BalancesChanged, LargeChangeDetected.
    Locks: the mismatch, the proposal, the order, the record, the account.
    """
    said = check_reason(reason, is_required=False)
    mismatch = lock_mismatch(session, passport, mismatch_id)
    state_after(mismatch.status, Verb.APPROVE)
    proposal = _lock_proposal(session, passport, mismatch)
    if content_sha256 is not None and content_sha256 != proposal.content_sha256.hex():
        raise ProposalChanged(content_sha256=proposal.content_sha256.hex())
    again = _plan_again(session, passport, mismatch, proposal, terms)
    if domain.digest_of(again) != bytes(proposal.content_sha256):
        raise ProposalOutdated
    _decide(session, passport, proposal, said)
    move_mismatch(
        session, passport, mismatch, Status(mismatch.status), act="approve", reason=said, correction_id=proposal.id
    )
    outbox.add(session, _told(CorrectionApproved, mismatch, proposal, proposal.content, said or proposal.reason))
    _apply(session, passport, mismatch, proposal, again, terms)
    return get_mismatch(session, passport, mismatch_id=mismatch_id)


def reject_correction(session: Session, passport: Passport, *, mismatch_id: str, reason: str) -> MismatchDetailView:
    """Reject the proposal that waits: the mismatch is as it was before.

    Raises, in order: InvalidRequest; MismatchNotFound; NoProposal; FourEyes.
    Emits: CorrectionRejected.
    Locks: the mismatch, the proposal.
    """
    said = check_reason(reason, is_required=True) or ""
    mismatch = lock_mismatch(session, passport, mismatch_id)
    after = state_after(mismatch.status, Verb.REJECT)
    proposal = _lock_proposal(session, passport, mismatch)
    _decide(session, passport, proposal, said, status="rejected")
    move_mismatch(session, passport, mismatch, after, act="reject", reason=said, correction_id=proposal.id)
    outbox.add(session, _told(CorrectionRejected, mismatch, proposal, proposal.content, said))
    return get_mismatch(session, passport, mismatch_id=mismatch_id)


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
    mismatch = lock_mismatch(session, passport, known["mismatch_id"])
    done = _lock_correction(session, correction_id)
    if done.status != "applied" or done.reversal_of is not None:
        raise CorrectionNotApplied(status=done.status)
    state_after(mismatch.status, Verb.REVERSE)
    if _waiting(session, mismatch.id) is not None:
        raise ProposalPending
    content = _plan_reversal(session, mismatch, done, said, terms)
    reversal_id = _propose_or_apply(session, passport, mismatch, content, terms)
    return get_correction(session, passport, correction_id=reversal_id)


def _plan(
    session: Session,
    passport: Passport,
    mismatch: Any,
    to: str,
    reason: str,
    new_order: NewOrder,
    terms: Terms,
    *,
    is_locked: bool,
) -> Content:
    if to not in ("upstream", "local"):
        raise InvalidRequest.of_field("to", "Must be upstream or local.")
    sides = _sides(session, mismatch, is_locked=is_locked)
    is_to_be_made = sides.order is None and sides.record is not None and mismatch.kind == "missing_local"
    if to == "upstream" and is_to_be_made:
        sides = replace(sides, order=_order_to_make(session, passport, mismatch, sides.record, new_order, terms))
    return domain.plan(sides, to=to, reason=reason, zone_name=terms.zone_name)


def _plan_again(session: Session, passport: Passport, mismatch: Any, proposal: Any, terms: Terms) -> Content:
    """Return what the proposal comes to now. Raises: ProposalOutdated."""
    if proposal.reversal_of is not None:
        done = _lock_correction(session, proposal.reversal_of)
        if done.status != "applied":
            raise ProposalOutdated
        return _plan_reversal(session, mismatch, done, proposal.reason, terms)
    order = proposal.content["order"]
    new_order = NewOrder(**{n: order[n] for n in ("merchant_id", "user_id", "kind")}) if order else NewOrder()
    try:
        return _plan(session, passport, mismatch, proposal.direction, proposal.reason, new_order, terms, is_locked=True)
    except (MismatchOutdated, NotCorrectable, OrderTermsRequired):
        raise ProposalOutdated from None


def _plan_reversal(session: Session, mismatch: Any, done: Any, reason: str, terms: Terms) -> Content:
    order_no = done.content["order"]["order_no"] if done.content["order"] else None
    order = _order_side(session, order_no, mismatch.channel, is_locked=True) if order_no else None
    content = domain.plan_reversal(
        done.content,
        correction_id=done.id,
        order=order,
        reason=reason,
        applied_at=done.applied_at,
        zone_name=terms.zone_name,
    )
    for record in content["records"]:
        _check_record(session, record, done.id)
    return content


def _check_record(session: Session, record: Content, correction_id: str) -> None:
    """Refuse to change a record that is not as its correction left it. Raises: ProposalOutdated."""
    query = sa.select(records).where(records.c.id == record["id"]).with_for_update()
    row = session.execute(query).one()
    voided_by = correction_id if record["before"]["is_void"] else None
    if row.voided_by != voided_by or row.order_no != record["before"]["order_no"]:
        raise ProposalOutdated


def _sides(session: Session, mismatch: Any, *, is_locked: bool) -> Sides:
    """Return both sides of a mismatch as they are now."""
    order_no = mismatch.order_no or mismatch.id  # the number that a correction gave it, where the record has none
    order = _order_side(session, order_no, mismatch.channel, is_locked=is_locked)
    record = None
    if mismatch.record_id is not None:
        query = sa.select(records).where(records.c.id == mismatch.record_id)
        row = session.execute(query.with_for_update() if is_locked else query).first()
        record = None if row is None else _record_side(row)
    return Sides(kind=mismatch.kind, order=order, record=record, others=_others(session, mismatch))


def _others(session: Session, mismatch: Any) -> int:
    c = records.c
    conditions = [c.channel == mismatch.channel, c.order_no == mismatch.order_no, c.voided_by.is_(None)]
    if mismatch.record_id is not None:
        conditions += [c.id != mismatch.record_id, c.status.in_(("success", "refunded"))]
    return int(session.execute(sa.select(sa.func.count()).where(*conditions)).scalar_one())


def _order_side(session: Session, order_no: str, channel: str, *, is_locked: bool) -> OrderSide | None:
    query = sa.select(orders).where(orders.c.order_no == order_no, orders.c.channel == channel)
    row = session.execute(query.with_for_update() if is_locked else query).first()
    if row is None:
        return None
    return OrderSide(
        order_no=row.order_no,
        merchant_id=row.merchant_id,
        user_id=order_user_id(row),
        kind=row.kind,
        currency=row.currency,
        channel=row.channel,
        status=row.status,
        amount=row.amount,
        refunded=row.refunded,
        given_back=given_back(session, row) if row.kind in REFUNDABLE else row.refunded,
        held=row.held,
        fee=row.fee,
        fee_percent=str(row.fee_percent),
        fee_source=row.fee_source,
        upstream_ref=row.upstream_ref,
        settled_at=None if row.settled_at is None else rfc3339(row.settled_at),
    )


def _record_side(row: Any) -> RecordSide:
    return RecordSide(
        id=row.id,
        upstream_ref=row.upstream_ref,
        order_no=row.order_no,
        status=row.status,
        amount=row.amount,
        fee=row.fee,
        currency=row.currency,
        occurred_at=rfc3339(row.occurred_at),
        voided_by=row.voided_by,
    )


def _order_to_make(
    session: Session, passport: Passport, mismatch: Any, record: RecordSide | None, new_order: NewOrder, terms: Terms
) -> OrderSide | None:
    """Return the order that a record of a payment stands for, as it will be made. Raises: MerchantNotFound."""
    if record is None or new_order.merchant_id is None or new_order.kind is None:
        return None
    require_merchant(session, passport, new_order.merchant_id)
    new = check_order(
        order_no=mismatch.order_no or mismatch.id,
        merchant_id=new_order.merchant_id,
        user_id=new_order.user_id,
        kind=new_order.kind,
        amount=format_minor(record.amount, record.currency),
        currency=record.currency,
        channel=mismatch.channel,
    )
    percent, source = rate_in_force(session, mismatch.channel, terms.default_fee_percent)
    return OrderSide(
        order_no=str(new.change.order_no),
        merchant_id=new_order.merchant_id,
        user_id=new_order.user_id,
        kind=new.kind.value,
        currency=record.currency,
        channel=mismatch.channel,
        status="pending",
        amount=record.amount,
        refunded=0,
        given_back=0,
        held=0,
        fee=fee_of(record.amount, percent),
        fee_percent=str(percent),
        fee_source=source,
        upstream_ref=None,
        settled_at=None,
        is_new=True,
    )


def _propose_or_apply(session: Session, passport: Passport, mismatch: Any, content: Content, terms: Terms) -> str:
    """Write down a correction, and apply it unless a second person is needed. Returns: its id."""
    waits = domain.needs_approval(content, terms.approval_threshold)
    if waits:
        _require_person(passport)
    values = {
        "id": new_id("cor"),
        "mismatch_id": mismatch.id,
        "direction": content["to"],
        "content": content,
        "content_sha256": domain.digest_of(content),
        "status": "proposed",
        "reason": content["reason"],
        "reversal_of": content["reverses"],
        "proposed_by": passport.actor_id,
        "proposed_by_name": passport.actor_name,
        "created_at": _NOW,
    }
    proposal = session.execute(sa.insert(corrections).values(values).returning(corrections)).one()
    if not waits:
        _apply(session, passport, mismatch, proposal, content, terms)
        return str(proposal.id)
    is_reversal = content["reverses"] is not None
    after = Status(mismatch.status) if is_reversal else state_after(mismatch.status, Verb.PROPOSE)
    move_mismatch(
        session, passport, mismatch, after, act="propose", reason=content["reason"], correction_id=proposal.id
    )
    outbox.add(session, _told(CorrectionProposed, mismatch, proposal, content, content["reason"]))
    return str(proposal.id)


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


def _apply(
    session: Session, passport: Passport, mismatch: Any, correction: Any, content: Content, terms: Terms
) -> None:
    """Do what a correction says: the order, its entries, the records, the mismatch; all of it in this transaction."""
    order = content["order"]
    if order is not None:
        _change_order(session, passport, correction, content, terms)
    _change_records(session, correction, content, mismatch.channel)
    is_reversal = content["reverses"] is not None
    c = corrections.c
    session.execute(sa.update(corrections).where(c.id == correction.id).values(status="applied", applied_at=_NOW))
    if is_reversal:
        session.execute(sa.update(corrections).where(c.id == content["reverses"]).values(status="reversed"))
    row = session.execute(sa.select(mismatches).where(mismatches.c.id == mismatch.id)).one()
    merchant = {"merchant_id": order["merchant_id"]} if order and row.merchant_id is None else {}
    moved = move_mismatch(
        session,
        passport,
        row,
        Status.OPEN if is_reversal else Status.CORRECTED,
        act="reverse" if is_reversal else "apply",
        reason=content["reason"],
        correction_id=correction.id,
        **merchant,
    )
    event = CorrectionReversed if is_reversal else CorrectionApplied
    outbox.add(session, _told(event, moved, correction, content, content["reason"]))


def _change_order(session: Session, passport: Passport, correction: Any, content: Content, terms: Terms) -> None:
    order = content["order"]
    after = order["after"] | {"settled_at": _instant(order["after"]["settled_at"])}
    if order["is_new"] and content["reverses"] is None:
        before = _make_order(session, passport, order)
    else:
        c = orders.c
        before = session.execute(sa.select(orders).where(c.order_no == order["order_no"])).one()
    if before.held > after["held"]:
        _free(session, before.account_id, before.held - after["held"])
    posted = _post(session, passport, content, terms.large_change)
    if before.held < after["held"]:
        hold(session, before.account_id, after["held"] - before.held, order["currency"])
    row = session.execute(sa.update(orders).where(orders.c.id == before.id).values(after).returning(orders)).one()
    _note(session, passport, before, row, content)
    rows = [
        {
            "correction_id": correction.id,
            "account_id": int(view["entry_id"].split("_")[1]),
            "version": view["version"],
            "order_no": order["order_no"],
            "merchant_id": order["merchant_id"],
            "channel": order["channel"],
            "bucket": entry["bucket"],
            "day": date.fromisoformat(entry["day"]),
            "amount": entry["amount"],
            "currency": order["currency"],
        }
        for entry, view in zip(content["entries"], posted, strict=True)
        if entry["bucket"] is not None
    ]
    if rows:
        session.execute(sa.insert(correction_entries), rows)


def _instant(text: str | None) -> Any:
    return None if text is None else parse_rfc3339(text)


def _make_order(session: Session, passport: Passport, order: Content) -> Any:
    """Return a new order, pending and holding nothing yet. Raises: OrderNumberTaken."""
    values = {
        "order_no": order["order_no"],
        "merchant_id": order["merchant_id"],
        "holder_type": "merchant" if order["user_id"] is None else "user",
        "holder_id": order["user_id"] or order["merchant_id"],
        "kind": order["kind"],
        "amount": order["before"]["amount"],
        "fee": order["fee"],
        "fee_percent": order["fee_percent"],
        "fee_source": order["fee_source"],
        "currency": order["currency"],
        "fraction_digits": fraction_digits(order["currency"]),
        "channel": order["channel"],
        # It is made and corrected in one transaction, and a pending order of a kind that holds would hold.
        "status": "failed",
    }
    names = ", ".join(values)
    row = session.execute(
        sa.text(
            f"insert into orders ({names}) values ({', '.join(f':{name}' for name in values)})"
            " on conflict on constraint uq_orders_order_no do nothing returning *"
        ),
        values,
    ).first()
    if row is None:
        raise OrderNumberTaken
    note_act(session, passport, row, act="create", before=None, amount=row.amount)
    return row


def _free(session: Session, account_id: int, amount: int) -> None:
    c = accounts.c
    session.execute(sa.update(accounts).where(c.id == account_id).values(held=c.held - amount, updated_at=_NOW))


def _changes(content: Content) -> list[Change]:
    order = content["order"]
    return [
        Change(
            order["merchant_id"],
            "merchant" if order["user_id"] is None else "user",
            order["user_id"] or order["merchant_id"],
            BALANCE_TYPES[entry["type"]],
            entry["amount"],
            order["currency"],
            order["order_no"],
            order["channel"],
            None,
            content["reason"],
        )
        for entry in content["entries"]
    ]


def _post(session: Session, passport: Passport, content: Content, threshold: Threshold) -> list[Any]:
    """Post a correction's entries, all or none. Returns: their views.

    Raises: InsufficientBalance, BalanceTooLarge, Unavailable.
    """
    changes = _changes(content)
    if not changes:
        return []
    call = replace(current_call.get(), passport=passport, idempotency_key=None)
    posting = Posting(call, changes, is_batch=True, is_atomic=True, is_of_order=True)
    for _ in range(ATTEMPTS_MAX):
        savepoint = session.begin_nested()
        try:
            [outcome] = post(session, [posting], threshold=threshold)
        except PostingRaced:
            savepoint.rollback()
            continue
        savepoint.commit()
        if isinstance(outcome, ServiceError):
            outcome.extra.pop("index", None)
            raise outcome
        return [item["entry"] for item in orjson.loads(outcome.result)["items"]]
    raise Unavailable(retry_after_seconds=1)


def _note(session: Session, passport: Passport, before: Any, after: Any, content: Content) -> None:
    """Note in the order's history what was corrected; a refund among it as a refund, by which refunds are counted."""
    reason = content["reason"]
    refunds = [e["amount"] for e in content["entries"] if e["bucket"] is None]
    for amount in refunds:
        note_act(session, passport, after, act="refund", before=before.status, amount=amount, reason=reason)
    note_act(
        session,
        passport,
        after,
        act="correct",
        before=before.status,
        amount=after.amount,
        upstream_ref=after.upstream_ref,
        reason=reason,
    )


def _change_records(session: Session, correction: Any, content: Content, channel: str) -> None:
    c = records.c
    for record in content["records"]:
        after = record["after"]
        voided_by = correction.id if after["is_void"] else None
        changing = sa.update(records).where(c.id == record["id"])
        session.execute(changing.values(voided_by=voided_by, order_no=after["order_no"]))
    if content["reverses"] is not None:
        added = [c.channel == channel, c.upstream_ref == _own_ref(content["reverses"]), c.source == "correction"]
        session.execute(sa.update(records).where(*added).values(voided_by=correction.id))
    new = content["new_record"]
    if new is not None:
        values = new | {
            "channel": channel,
            "upstream_ref": _own_ref(correction.id),
            "occurred_at": _instant(new["occurred_at"]),
            "source": "correction",
        }
        session.execute(sa.insert(records).values(values))


def _own_ref(correction_id: str) -> str:
    """Return the reference of the record by which a correction says what we say."""
    return f"correction:{correction_id}"


def _told(event: type[Any], mismatch: Any, correction: Any, content: Content, reason: str) -> Event:
    order = content["order"]
    changes = changed_fields(order["before"], order["after"], order["currency"]) if order else []
    told: Event = event(
        correction_id=correction.id,
        mismatch_id=mismatch.id,
        kind=mismatch.kind,
        to=content["to"],
        order_no=order["order_no"] if order else mismatch.order_no,
        merchant_id=mismatch.merchant_id or (order["merchant_id"] if order else None),
        content_sha256=correction.content_sha256.hex(),
        reason=reason,
        reversal_of=correction.reversal_of,
        changes={change["field"]: {"before": change["before"], "after": change["after"]} for change in changes},
    )
    return told
