"""How a card comes by its number: the one that is given, or a free one under a BIN. Equal numbers never meet."""

import secrets
from collections.abc import Iterator
from itertools import islice

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.cards.bins.queries import find_range_of, list_bins_within
from services.cards.bins.usecases import range_for_card
from services.cards.cipher import NumberCipher
from services.cards.domain import numbers
from services.cards.domain.states import Status
from services.cards.models import Card
from shared.contracts.cards import BinExhausted, CardNumberTaken
from shared.ids import new_id

NUMBER_ATTEMPTS_MAX = 20
# Where there are so few numbers, chance may miss the last free ones: then all of them are looked through.
NUMBERS_LOOKED_THROUGH_MAX = 10_000


def insert_given(session: Session, cipher: NumberCipher, number: str, details: dict[str, str]) -> Card:
    """Insert a card with this number, of the brand that its registered BIN says. Raises: CardNumberTaken."""
    found = find_range_of(session, number)
    brand = numbers.brand_of(number) if found is None else found.brand
    card = _insert_card(session, cipher, number, details | {"brand": brand})
    if card is None:
        raise CardNumberTaken
    return card


def insert_under_bin(
    session: Session, cipher: NumberCipher, bin_: str, details: dict[str, str], *, merchant_id: str | None
) -> Card:
    """Insert a card with a free number under the BIN, of the length and brand that its registered range says.

    Raises, in order: BinDisabled, BinReserved, BinExhausted.
    """
    found = range_for_card(session, bin_, merchant_id=merchant_id)
    brand, length = (numbers.brand_of(bin_), None) if found is None else (found.brand, found.length)
    filler_length = numbers.filler_length(bin_, length)
    for number in _candidates(session, cipher, bin_, filler_length):
        card = _insert_card(session, cipher, number, details | {"brand": brand})
        if card is not None:
            return card
    raise BinExhausted


def _candidates(session: Session, cipher: NumberCipher, bin_: str, filler_length: int) -> Iterator[str]:
    """Yield numbers under a BIN that may be free, but none under a longer BIN that is registered for itself."""
    not_ours = tuple(list_bins_within(session, bin_))
    count = 10**filler_length
    if count > NUMBERS_LOOKED_THROUGH_MAX:
        fillers = (secrets.randbelow(count) for _ in range(NUMBERS_LOOKED_THROUGH_MAX))
        made = (numbers.complete_number(bin_, str(filler).zfill(filler_length)) for filler in fillers)
        yield from islice((number for number in made if not number.startswith(not_ours)), NUMBER_ATTEMPTS_MAX)
        return
    everyone = [numbers.complete_number(bin_, str(filler).zfill(filler_length)) for filler in range(count)]
    by_index = {i: number for number in everyone if not number.startswith(not_ours) for i in cipher.indexes(number)}
    taken = session.scalars(select(Card.number_index).where(Card.number_index.in_(by_index)))
    free = sorted(set(by_index.values()) - {by_index[index] for index in taken})
    secrets.SystemRandom().shuffle(free)
    yield from free


def _insert_card(session: Session, cipher: NumberCipher, number: str, details: dict[str, str]) -> Card | None:
    """Insert a card; None when its number is taken, also by a transaction that commits while we wait for it."""
    current, *others = cipher.indexes(number)
    if others and _stands_under_another_key(session, min(current, *others), others):
        return None
    card_id = new_id("car")
    sealed = cipher.seal(number, card_id=card_id)
    statement = (
        insert(Card)
        .values(
            id=card_id,
            number_index=current,
            number_sealed=sealed.sealed,
            number_key_id=sealed.key_id,
            number_masked=numbers.mask(number),
            bin=number[: numbers.BIN_DIGITS_SHOWN],
            last4=number[-numbers.LAST_DIGITS_SHOWN :],
            status=Status.INACTIVE,
            **details,
        )
        .on_conflict_do_nothing(constraint="uq_cards_number_index")
        .returning(Card)
    )
    return session.scalar(statement)


def _stands_under_another_key(session: Session, lock: bytes, indexes: list[bytes]) -> bool:
    """Return whether a card has this number, indexed by a key that is not the current one.

    While keys change, the index is not unique by itself: two processes may hold different keys for the current one.
    So whoever makes a card with a number is alone with that number until its transaction ends.
    """
    session.execute(select(func.pg_advisory_xact_lock(int.from_bytes(lock[:8], signed=True))))
    return session.scalar(select(Card.id).where(Card.number_index.in_(indexes))) is not None
