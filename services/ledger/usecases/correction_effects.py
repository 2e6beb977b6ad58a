"""Doing what a correction says: the order, its entries, the records, the mismatch, in one transaction."""

from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.balance_types import BALANCE_TYPES
from services.ledger.domain.changes import Change
from services.ledger.domain.corrections import Content
from services.ledger.domain.mismatches import Status
from services.ledger.models.entries import accounts
from services.ledger.models.mismatches import correction_entries, corrections
from services.ledger.models.orders import orders
from services.ledger.models.statements import upstream_records
from services.ledger.queries.corrections import changed_fields
from services.ledger.row_digests import inserting
from services.ledger.usecases.correction_sides import Terms
from services.ledger.usecases.mismatch_batches import Batch
from services.ledger.usecases.mismatches import move_mismatch
from services.ledger.usecases.orders import NOTE, hold, note_act, noted, refuse_posted
from services.ledger.usecases.postings import post_within
from shared.contracts.ledger import OrderNumberTaken
from shared.contracts.mismatches import CorrectionApplied, CorrectionReversed
from shared.events import Event
from shared.money import fraction_digits
from shared.passport import Passport
from shared.times import parse_rfc3339

_NOW: Final = sa.func.clock_timestamp()
_KEEP: Final = sa.text(inserting(correction_entries))


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Which correction is applied or told of. `is_written`: it waited as a proposal."""

    id: str
    content_sha256: bytes
    reversal_of: str | None
    is_written: bool


def apply_correction(
    session: Session,
    passport: Passport,
    batch: Batch,
    mismatch: Any,
    correction: Correction,
    content: Content,
    terms: Terms,
) -> str:
    """Do what a correction says: the order, its entries, the records, the mismatch; all of it in this transaction.

    Returns: the mismatch's status.
    """
    order = content["order"]
    if order is not None:
        _change_order(session, passport, batch, correction, content, terms)
    _change_records(session, correction, content, mismatch.channel)
    is_reversal = content["reverses"] is not None
    c = corrections.c
    if correction.is_written:
        session.execute(sa.update(corrections).where(c.id == correction.id).values(status="applied", applied_at=_NOW))
    if is_reversal:
        session.execute(sa.update(corrections).where(c.id == content["reverses"]).values(status="reversed"))
    after = Status.OPEN if is_reversal else Status.CORRECTED
    move_mismatch(
        passport,
        batch,
        mismatch,
        after,
        act="reverse" if is_reversal else "apply",
        reason=content["reason"],
        correction_id=correction.id,
        made_for=order["merchant_id"] if order else None,
    )
    event = CorrectionReversed if is_reversal else CorrectionApplied
    batch.tell(told_of(event, mismatch, correction, content, content["reason"]))
    return after.value


def _change_order(
    session: Session, passport: Passport, batch: Batch, correction: Correction, content: Content, terms: Terms
) -> None:
    order = content["order"]
    after = order["after"] | {"settled_at": _instant(order["after"]["settled_at"])}
    if order["is_new"] and content["reverses"] is None:
        before = _make_order(session, passport, order)
    else:
        c = orders.c
        before = session.execute(sa.select(orders).where(c.order_no == order["order_no"])).one()
    if before.held > after["held"]:
        _free(session, before.account_id, before.held - after["held"])
    posted = post_within(session, passport, changes_of(content), threshold=terms.large_change, is_of_order=True)
    if before.held < after["held"]:
        hold(session, before.account_id, after["held"] - before.held, order["currency"])
    row = session.execute(sa.update(orders).where(orders.c.id == before.id).values(after).returning(orders)).one()
    _note(passport, batch, before, row, content)
    for entry, view in zip(content["entries"], posted, strict=True):
        if entry["bucket"] is None:
            continue
        kept = {
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
            "type": entry["type"],
            "posted_at": parse_rfc3339(view["time"]),
        }
        batch.add(_KEEP, kept)


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
    refuse_posted(session, row)
    note_act(session, passport, row, act="create", before=None, amount=row.amount)
    return row


def _free(session: Session, account_id: int, amount: int) -> None:
    c = accounts.c
    session.execute(sa.update(accounts).where(c.id == account_id).values(held=c.held - amount, updated_at=_NOW))


def changes_of(content: Content) -> list[Change]:
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


def _note(passport: Passport, batch: Batch, before: Any, after: Any, content: Content) -> None:
    """Note in the order's history what was corrected; a refund among it as a refund, by which refunds are counted."""
    reason = content["reason"]
    refunds = [e["amount"] for e in content["entries"] if e["bucket"] is None]
    for amount in refunds:
        batch.add(NOTE, noted(passport, after, act="refund", before=before.status, amount=amount, reason=reason))
    corrected = noted(
        passport,
        after,
        act="correct",
        before=before.status,
        amount=after.amount,
        upstream_ref=after.upstream_ref,
        reason=reason,
    )
    batch.add(NOTE, corrected)


def _change_records(session: Session, correction: Any, content: Content, channel: str) -> None:
    c = upstream_records.c
    for record in content["records"]:
        after = record["after"]
        voided_by = correction.id if after["is_void"] else None
        changing = sa.update(upstream_records).where(c.id == record["id"])
        session.execute(changing.values(voided_by=voided_by, order_no=after["order_no"]))
    if content["reverses"] is not None:
        added = [c.channel == channel, c.upstream_ref == _own_ref(content["reverses"]), c.source == "correction"]
        session.execute(sa.update(upstream_records).where(*added).values(voided_by=correction.id))
    new = content["new_record"]
    if new is not None:
        values = new | {
            "channel": channel,
            "upstream_ref": _own_ref(correction.id),
            "occurred_at": _instant(new["occurred_at"]),
            "source": "correction",
        }
        session.execute(sa.insert(upstream_records).values(values))


def _own_ref(correction_id: str) -> str:
    """Return the reference of the record by which a correction says what we say."""
    return f"correction:{correction_id}"


def told_of(event: type[Any], mismatch: Any, correction: Correction, content: Content, reason: str) -> Event:
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


def _instant(text: str | None) -> Any:
    return None if text is None else parse_rfc3339(text)
