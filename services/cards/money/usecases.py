"""What becomes of a transfer, a transaction each: it is requested, put off, taken up again, settled.

The card's row is locked first, so that status, merchant, limits and emptiness are decided one after the other.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.cards.domain.limits import Limits
from services.cards.domain.states import Status
from services.cards.domain.transfers import Direction, State, require_transferable
from services.cards.models import Card
from services.cards.money.models import Transfer
from services.cards.money.queries import read_usage
from services.cards.queries import lock_card
from services.cards.timeline.telling import tell
from shared import idempotency
from shared.contracts.cards import (
    CardNotEmpty,
    CardToppedUp,
    CardTransferRefused,
    CardWithdrawn,
    CardWithoutMerchant,
)
from shared.contracts.ledger import CardTransferOutcome
from shared.errors import Conflict, IdempotencyInProgress, IdempotencyKeyReused, NotFound, ServiceError
from shared.ids import new_id
from shared.kernel_tables import idempotency_keys
from shared.money import InvalidMoney, format_minor, parse_minor
from shared.rpc.wire import Answer, Call

AMOUNT_MINOR_MAX: Final = 10**17
LEASE_SECONDS: Final = 8  # longer than the ledger is waited for
ATTEMPT_PAUSE_SECONDS_MAX: Final = 10

_NOW: Final = sa.func.clock_timestamp()


def _in_seconds(seconds: Any) -> Any:
    """Return the instant so many seconds from now, by the database's clock."""
    return _NOW + sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def begin_transfer(
    session: Session, call: Call, *, card_id: str, direction: Direction, amount: str, zone_name: str
) -> Transfer | Answer | ServiceError:
    """Write down a transfer that is to be carried out now.

    Returns: the transfer; or the answer or refusal that the call's key had before, or has from now on.
    Raises, in order: IdempotencyInProgress while somebody else is at it; IdempotencyKeyReused; what
    `request_transfer` does and is no Conflict and no NotFound.
    """
    if call.idempotency_key is not None:
        first = idempotency.claim(session, call)
        if first is not None:
            return first
        known = _transfer_of_key(session, call)
        if known is not None:
            return _take_up(session, known, call)
    try:
        return request_transfer(session, call, card_id=card_id, direction=direction, amount=amount, zone_name=zone_name)
    except (Conflict, NotFound) as refusal:
        # Nothing is written yet but this.
        if call.idempotency_key is not None:
            idempotency.keep(session, call, refusal=refusal)
        return refusal


def request_transfer(
    session: Session, call: Call, *, card_id: str, direction: Direction, amount: str, zone_name: str
) -> Transfer:
    """Write down a transfer, which counts against the card's limits and emptiness from now on.

    Raises, in order: CardNotFound; InvalidMoney; a refusal of the card's state; CardWithoutMerchant; LimitExceeded.
    Locks: the card.
    """
    card = lock_card(session, call.passport, card_id)
    minor = parse_minor(amount, card.currency)
    if not 0 < minor <= AMOUNT_MINOR_MAX:
        raise InvalidMoney.of_field("amount", "Must be more than zero, and not too large.")
    require_transferable(Status(card.status), direction)
    if card.merchant_id is None:
        raise CardWithoutMerchant
    now = session.scalars(sa.select(_NOW)).one()
    if direction is Direction.TOP_UP:
        _check_limits(session, card, minor, now=now, zone_name=zone_name)
    passport = call.passport
    transfer = Transfer(
        id=new_id("ctr"),
        card_id=card.id,
        merchant_id=card.merchant_id,
        direction=direction.value,
        amount=minor,
        currency=card.currency,
        state=State.REQUESTED.value,
        idempotency_key=call.idempotency_key,
        request_hash=call.request_hash,
        actor_id=passport.actor_id,
        actor_name=passport.actor_name,
        actor_type=passport.actor_type,
        request_id=passport.request_id,
        ip=passport.ip,
        user_agent=passport.user_agent,
        attempts=1,
        next_attempt_at=_in_seconds(LEASE_SECONDS),
        created_at=now,
    )
    session.add(transfer)
    session.flush()
    return transfer


def _check_limits(session: Session, card: Card, amount: int, *, now: datetime, zone_name: str) -> None:
    limits = card.limits()
    limits.check(
        amount,
        read_usage(session, card.id, now=now, zone_name=zone_name, is_needed=limits.need_usage),
        currency=card.currency,
    )


def _transfer_of_key(session: Session, call: Call) -> Transfer | None:
    return session.scalar(
        sa.select(Transfer)
        .where(Transfer.actor_id == call.passport.actor_id, Transfer.idempotency_key == call.idempotency_key)
        .with_for_update()
    )


def _take_up(session: Session, transfer: Transfer, call: Call) -> Transfer | Answer | ServiceError:
    """Return what the key's transfer came to; or the transfer itself, to be carried out, where nobody knows yet."""
    if transfer.request_hash != call.request_hash:
        raise IdempotencyKeyReused
    if transfer.state == State.REQUESTED:
        if transfer.next_attempt_at > session.scalars(sa.select(_NOW)).one():
            raise IdempotencyInProgress(retry_after_seconds=1)
        _lease(transfer)
        session.flush()
        return transfer
    error = transfer.error()
    if error is not None:
        error.extra |= {"is_replayed": True, "request_id": transfer.request_id}
        return error
    return Answer(transfer.view(), is_replayed=True)


def _lease(transfer: Transfer) -> None:
    transfer.attempts += 1
    transfer.next_attempt_at = _in_seconds(LEASE_SECONDS)


def take_due_transfer(session: Session) -> Transfer | None:
    """Return a transfer whose outcome nobody knows and nobody waits for, to be carried out by the caller."""
    due = (
        sa.select(Transfer)
        .where(Transfer.state == State.REQUESTED.value, Transfer.next_attempt_at <= _NOW)
        .order_by(Transfer.next_attempt_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    transfer = session.scalar(due)
    if transfer is not None:
        _lease(transfer)
        session.flush()
    return transfer


def put_off(session: Session, transfer_id: str) -> None:
    """Let the transfer be taken up again after a while: the ledger did not say what became of it."""
    pause_seconds = sa.func.least(Transfer.attempts, ATTEMPT_PAUSE_SECONDS_MAX)
    session.execute(
        sa.update(Transfer)
        .where(Transfer.id == transfer_id, Transfer.state == State.REQUESTED.value)
        .values(next_attempt_at=_in_seconds(pause_seconds))
    )


def settle_transfer(session: Session, transfer: Transfer, outcome: CardTransferOutcome) -> Transfer:
    """Write down what the ledger says became of a transfer; the first to do so does, the others find it done.

    Emits: CardToppedUp, CardWithdrawn or CardTransferRefused.
    Locks: the card, then the transfer.
    """
    card = session.scalars(sa.select(Card).where(Card.id == transfer.card_id).with_for_update()).one()
    settled = session.scalars(
        sa.select(Transfer)
        .where(Transfer.id == transfer.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()
    if settled.state != State.REQUESTED:
        return settled
    before, now = card.balance, session.scalars(sa.select(_NOW)).one()
    if outcome["refusal"] is None:
        assert outcome["balance"] is not None
        assert outcome["version"] is not None
        settled.state = State.POSTED.value
        settled.balance = parse_minor(outcome["balance"], settled.currency)
        # A later transfer may have been settled before this one.
        if outcome["version"] > card.balance_version:
            card.balance, card.balance_version = settled.balance, outcome["version"]
    else:
        settled.state = State.REFUSED.value
        settled.refusal = orjson.dumps(outcome["refusal"]).decode()
    settled.settled_at = now
    session.flush()
    _tell(session, card, settled, before)
    _keep_answer(session, settled)
    return settled


def _tell(session: Session, card: Card, transfer: Transfer, before: int) -> None:
    facts: dict[str, Any] = {
        "card_id": card.id,
        "merchant_id": transfer.merchant_id,
        "number_masked": card.number_masked,
        "transfer_id": transfer.id,
        "amount": format_minor(transfer.amount, transfer.currency),
        "currency": transfer.currency,
    }
    error = transfer.error()
    if error is not None:
        tell(session, CardTransferRefused(**facts, direction=transfer.direction, code=error.code))
        return
    event_class = CardToppedUp if transfer.direction == Direction.TOP_UP else CardWithdrawn
    texts = [format_minor(minor, card.currency) for minor in (before, card.balance)]
    tell(session, event_class(**facts, changes={"balance": {"before": texts[0], "after": texts[1]}}))


def _keep_answer(session: Session, transfer: Transfer) -> None:
    """Keep the outcome as the key's answer, so that the key is known to be used for nothing else."""
    if transfer.idempotency_key is None:
        return
    error = transfer.error()
    answer = {
        "caller": transfer.actor_id,
        "key": transfer.idempotency_key,
        "request_hash": transfer.request_hash,
        "answer": orjson.dumps(transfer.view()).decode() if error is None else None,
        "error": None if error is None else idempotency.refusal_to_keep(transfer.call(), error),
    }
    session.execute(insert(idempotency_keys).values(answer).on_conflict_do_nothing())


def require_empty(session: Session, cards: Sequence[Card]) -> None:
    """Refuse what a card with money in it must not go through. The cards are locked by the caller.

    Nothing but transfers moves a card's money, so a card without a transfer under way has what the last one left.
    Raises: CardNotEmpty, with `card_ids`.
    """
    under_way = set(
        session.scalars(
            sa.select(Transfer.card_id).where(
                Transfer.card_id.in_([card.id for card in cards]), Transfer.state == State.REQUESTED.value
            )
        )
    )
    full = [card for card in cards if card.balance or card.id in under_way]
    if not full:
        return
    first = full[0]
    detail = (
        f"The card holds {format_minor(first.balance, first.currency)} {first.currency}."
        if first.balance
        else "A transfer of this card is under way."
    )
    raise CardNotEmpty(detail, card_ids=[card.id for card in full])


def change_limits(card: Card, wanted: dict[str, Any]) -> dict[str, Any]:
    """Put some of a locked card's limits differently. Returns: the change for the event, if there is one.

    Raises: InvalidRequest, InvalidMoney.
    """
    before: Limits = card.limits()
    after = before.changed(wanted, currency=card.currency)
    if after == before:
        return {}
    card.set_limits(after)
    return {"limits": {"before": before.view(card.currency), "after": after.view(card.currency)}}
