"""What can be done to cards. Each function runs in the caller's transaction; a card is locked before it changes.

People write card numbers into names and reasons too: there they are masked before anything is kept or told of.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.cards.cipher import NumberCipher
from services.cards.devices.domain import Because
from services.cards.devices.usecases import end_bindings
from services.cards.domain import numbers
from services.cards.domain.expiry import default_expiry, parse_expiry
from services.cards.domain.states import Status, Verb, next_status, require_open
from services.cards.making import NewCard, insert_cards
from services.cards.models import Assignment, Card
from services.cards.money.usecases import change_limits, require_empty
from services.cards.queries import lock_card, visible
from services.cards.timeline.telling import tell
from shared.contracts.cards import (
    AssignmentsView,
    CardActivated,
    CardAssigned,
    CardClosed,
    CardCreated,
    CardFrozen,
    CardIsClosed,
    CardNotFound,
    CardRevealed,
    CardUnfrozen,
    CardUpdated,
    CardView,
    MerchantRequired,
    RevealedCardView,
)
from shared.copies import require_merchant
from shared.errors import InvalidRequest, PermissionDenied, ServiceError
from shared.masking import mask_text
from shared.money import fraction_digits
from shared.passport import Passport
from shared.times import utc_now

CARDS_PER_ASSIGNMENT_MAX = 1_000


def create_card(
    session: Session,
    passport: Passport,
    cipher: NumberCipher,
    *,
    holder_name: str,
    currency: str,
    number: str | None = None,
    bin: str | None = None,
    expiry: str | None = None,
    merchant_id: str | None = None,
) -> CardView:
    """Create an inactive card, with the number that is given or a fresh one under the BIN.

    expiry: its last month, as YYYY-MM or MM/YY; None for three years from now.
    Raises, in order: InvalidMoney for an unknown currency, InvalidExpiry, MerchantRequired, MerchantNotFound,
    InvalidRequest for neither or both of number and BIN, InvalidCardNumber or InvalidBin, CardNumberTaken or
    BinDisabled, BinReserved, BinExhausted.
    Emits: CardCreated, and CardAssigned where a merchant is given.
    """
    card = {"holder_name": holder_name, "currency": currency, "number": number, "bin": bin, "expiry": expiry}
    [outcome] = create_cards(session, passport, cipher, [card | {"merchant_id": merchant_id}])
    if isinstance(outcome, ServiceError):
        raise outcome
    return outcome.view()


def create_cards(
    session: Session, passport: Passport, cipher: NumberCipher, cards: Sequence[Mapping[str, Any]]
) -> list[Card | ServiceError]:
    """Create cards, each of which has the fields that `create_card` takes.

    Returns: in their order the cards, or what `create_card` raises for one.
    Emits: CardCreated, and CardAssigned where a merchant is given.
    """
    outcomes: dict[int, Card | ServiceError] = {}
    checked: dict[int, NewCard] = {}
    merchants: set[str | None] = set()
    for n, fields in enumerate(cards):
        try:
            checked[n] = _checked(session, passport, merchants, **fields)
        except ServiceError as refusal:
            outcomes[n] = refusal
    outcomes |= zip(checked, insert_cards(session, cipher, list(checked.values())), strict=True)
    made = {n: card for n, card in outcomes.items() if isinstance(card, Card)}
    told = [_facts(card) | {"merchant_id": checked[n].merchant_id} for n, card in sorted(made.items())]
    brands = [{"brand": card.brand, "currency": card.currency} for _, card in sorted(made.items())]
    tell(session, *(CardCreated(**facts, **brand) for facts, brand in zip(told, brands, strict=True)))
    for merchant_id in {checked[n].merchant_id for n in made} - {None}:
        _assign(session, passport, [c for n, c in made.items() if checked[n].merchant_id == merchant_id], merchant_id)
    return [outcomes[n] for n in range(len(cards))]


def _checked(
    session: Session,
    passport: Passport,
    merchants: set[str | None],
    *,
    holder_name: str,
    currency: str,
    number: str | None = None,
    bin: str | None = None,
    expiry: str | None = None,
    merchant_id: str | None = None,
) -> NewCard:
    """Return a card to make, after its fields were checked; `merchants` are those that were found before."""
    fraction_digits(currency)
    month = default_expiry(utc_now().date()) if expiry is None else parse_expiry(expiry)
    if merchant_id is None and passport.merchants is not None:
        raise MerchantRequired.of_field("merchant_id", MerchantRequired.title)
    if merchant_id is not None and merchant_id not in merchants:
        require_merchant(session, passport, merchant_id)
        merchants.add(merchant_id)
    if (number is None) == (bin is None):
        raise InvalidRequest.of_field("number", "Give either a number or a BIN.")
    return NewCard(
        holder_name=mask_text(holder_name),
        currency=currency,
        expiry=month,
        merchant_id=merchant_id,
        number=None if number is None else numbers.parse_number(number),
        bin=None if bin is None else numbers.parse_bin(bin),
    )


def update_card(
    session: Session,
    passport: Passport,
    *,
    card_id: str,
    holder_name: str | None = None,
    expiry: str | None = None,
    limits: dict[str, Any] | None = None,
) -> CardView:
    """Change a card's holder name, expiry or limits; what is None stays.

    limits: those of `domain.limits.Limits` that change; None for no limit.
    Raises, in order: InvalidExpiry; CardNotFound; CardIsClosed; InvalidRequest or InvalidMoney for a limit.
    Emits: CardUpdated, when something changed.
    """
    month = None if expiry is None else parse_expiry(expiry)
    name = None if holder_name is None else mask_text(holder_name)
    card = lock_card(session, passport, card_id)
    require_open(Status(card.status))
    changes: dict[str, Any] = {}
    for field, value in (("holder_name", name), ("expiry", month)):
        before = getattr(card, field)
        if value is not None and value != before:
            setattr(card, field, value)
            changes[field] = {"before": before, "after": value}
    changes |= change_limits(card, limits or {})
    if changes:
        card.updated_at = utc_now()
        tell(session, CardUpdated(**_facts(card), changes=changes))
    return card.view()


def activate_card(session: Session, passport: Passport, *, card_id: str) -> CardView:
    """Let an inactive card be used. Raises: CardNotFound, a refusal of the state table. Emits: CardActivated."""
    card, changes = _move(session, passport, card_id, Verb.ACTIVATE, reason=None)
    tell(session, CardActivated(**_facts(card), changes=changes))
    return card.view()


def freeze_card(session: Session, passport: Passport, *, card_id: str, reason: str) -> CardView:
    """Stop an active card for a time. Raises: CardNotFound, a refusal of the state table. Emits: CardFrozen."""
    reason = mask_text(reason)
    card, changes = _move(session, passport, card_id, Verb.FREEZE, reason=reason)
    tell(session, CardFrozen(**_facts(card), reason=reason, changes=changes))
    return card.view()


def unfreeze_card(session: Session, passport: Passport, *, card_id: str) -> CardView:
    """Let a frozen card be used again. Raises: CardNotFound, a refusal of the state table. Emits: CardUnfrozen."""
    card, changes = _move(session, passport, card_id, Verb.UNFREEZE, reason=None)
    tell(session, CardUnfrozen(**_facts(card), changes=changes))
    return card.view()


def close_card(session: Session, passport: Passport, *, card_id: str, reason: str) -> CardView:
    """End a card for good. Raises, in order: CardNotFound, CardIsClosed, CardNotEmpty. Emits: CardClosed."""
    reason = mask_text(reason)
    card, changes = _move(session, passport, card_id, Verb.CLOSE, reason=reason)
    require_empty(session, [card])
    end_bindings(session, passport, [card.id], Because.CARD_CLOSED)
    tell(session, CardClosed(**_facts(card), reason=reason, changes=changes))
    return card.view()


def _move(
    session: Session, passport: Passport, card_id: str, verb: Verb, *, reason: str | None
) -> tuple[Card, dict[str, Any]]:
    card = lock_card(session, passport, card_id)
    before = Status(card.status)
    after = next_status(before, verb)
    card.status = after.value
    card.status_reason = reason
    card.updated_at = utc_now()
    return card, {"status": {"before": before.value, "after": after.value}}


def assign_card(
    session: Session,
    passport: Passport,
    *,
    card_id: str,
    merchant_id: str | None,
) -> CardView:
    """Give a card to a merchant, or take it off its merchant.

    Raises, in order: PermissionDenied for taking it off by somebody who sees some merchants only, MerchantNotFound,
    CardNotFound, CardIsClosed, CardNotEmpty where it would leave a merchant.
    Emits: CardAssigned, when it changed hands.
    """
    if merchant_id is None:
        _require_all_merchants(passport)
    else:
        require_merchant(session, passport, merchant_id)
    card = lock_card(session, passport, card_id)
    require_open(Status(card.status))
    _assign(session, passport, [card], merchant_id)
    return card.view()


def assign_cards(
    session: Session,
    passport: Passport,
    *,
    card_ids: list[str],
    merchant_id: str,
) -> AssignmentsView:
    """Give all these cards to a merchant, or none of them.

    card_ids: 1 to `CARDS_PER_ASSIGNMENT_MAX`; one that stands twice counts once.
    Returns: the cards in the order that they were named.
    Raises, in order: InvalidRequest, MerchantNotFound, CardNotFound, CardIsClosed, CardNotEmpty; the last three with
    `card_ids`.
    Emits: CardAssigned for each card that changed hands.
    Locks: the cards by ascending id.
    """
    wanted = list(dict.fromkeys(card_ids))
    if not 1 <= len(card_ids) <= CARDS_PER_ASSIGNMENT_MAX:
        raise InvalidRequest.of_field("card_ids", f"Name 1 to {CARDS_PER_ASSIGNMENT_MAX} cards.")
    require_merchant(session, passport, merchant_id)
    query = select(Card).where(Card.id.in_(wanted), visible(passport)).order_by(Card.id).with_for_update()
    found = {card.id: card for card in session.scalars(query)}
    if missing := [card_id for card_id in wanted if card_id not in found]:
        raise CardNotFound(card_ids=missing)
    if closed := [card_id for card_id in wanted if found[card_id].status == Status.CLOSED]:
        raise CardIsClosed(card_ids=closed)
    cards = [found[card_id] for card_id in wanted]
    changed = _assign(session, passport, cards, merchant_id)
    return {"items": [card.view() for card in cards], "changed": changed}


def _assign(session: Session, passport: Passport, cards: list[Card], merchant_id: str | None) -> int:
    """End the cards' open intervals and begin new ones; return how many cards changed hands.

    A card that is being created has its merchant still unset, so that creating assigns like anything else.
    """
    moving = [card for card in cards if card.merchant_id != merchant_id]
    if not moving:
        return 0
    # Its money is in an account of the merchant that it would leave.
    require_empty(session, moving)
    # And its devices are that merchant's.
    end_bindings(session, passport, [card.id for card in moving], Because.CARD_ASSIGNED)
    # The clock is read after the cards are locked, so that an interval never ends before it began.
    now: datetime | None = session.scalar(select(func.clock_timestamp()))
    assert now is not None
    open_intervals = select(Assignment).where(
        Assignment.card_id.in_([card.id for card in moving]), Assignment.unassigned_at.is_(None)
    )
    for interval in session.scalars(open_intervals):
        interval.unassigned_at = max(now, interval.assigned_at)
    events = []
    for card in moving:
        before, card.merchant_id, card.updated_at = card.merchant_id, merchant_id, now
        card.balance_version = 0  # of its account with the new merchant, which may have none yet
        facts = _facts(card) | {"merchant_id": merchant_id or before}
        events.append(CardAssigned(**facts, changes={"merchant_id": {"before": before, "after": merchant_id}}))
    tell(session, *events)
    # The old intervals must be closed before the new ones open: only one may be open.
    session.flush()
    if merchant_id is not None:
        session.add_all(
            Assignment(card_id=card.id, merchant_id=merchant_id, assigned_at=now, assigned_by=passport.actor_id)
            for card in moving
        )
        session.flush()
    return len(moving)


def reveal_card(
    session: Session, passport: Passport, cipher: NumberCipher, *, card_id: str, reason: str
) -> RevealedCardView:
    """Return a card's full number, and leave in the audit log who saw it and why.

    Raises: CardNotFound.
    Emits: CardRevealed.
    """
    card = lock_card(session, passport, card_id)
    number = cipher.open(card.sealed_number(), card_id=card.id)
    tell(session, CardRevealed(**_facts(card), reason=mask_text(reason)))
    return {"id": card.id, "number": number, "expiry": card.expiry}


def _facts(card: Card) -> dict[str, Any]:
    return {"card_id": card.id, "merchant_id": card.merchant_id, "number_masked": card.number_masked}


def _require_all_merchants(passport: Passport) -> None:
    if passport.merchants is not None:
        raise PermissionDenied("Only somebody who sees all merchants may leave a card without one.")
