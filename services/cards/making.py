"""How cards come by their numbers: those that are given, or free ones under a BIN. Equal numbers never meet.

Cards are made many at a time, in a handful of statements for all: a file of a thousand is one call.
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.cards.bins.models import BinRange
from services.cards.bins.queries import find_ranges, list_bins_within
from services.cards.bins.usecases import require_open_range
from services.cards.cipher import NumberCipher
from services.cards.domain import numbers
from services.cards.domain.states import Status
from services.cards.models import Card
from shared.contracts.cards import BinExhausted, CardNumberTaken
from shared.errors import Conflict
from shared.ids import new_id

NUMBER_ATTEMPTS_MAX = 20
# Where there are so few numbers, chance may miss the last free ones: then all of them are looked through.
NUMBERS_LOOKED_THROUGH_MAX = 10_000

_LOCK_NUMBERS = text(
    "select pg_advisory_xact_lock(key) from (select unnest(cast(:keys as bigint[])) as key order by 1) as sorted"
)


@dataclass(frozen=True)
class NewCard:
    """A card to make, with what was checked of it. It has a number, or a BIN to make one under."""

    holder_name: str
    currency: str
    expiry: str
    merchant_id: str | None
    number: str | None
    bin: str | None

    @property
    def digits(self) -> str:
        """The first digits that are known of its number: all of them, or its BIN."""
        return self.number or self.bin or ""


def insert_cards(session: Session, cipher: NumberCipher, wanted: Sequence[NewCard]) -> list[Card | Conflict]:
    """Insert cards, each of the brand that its registered BIN says, and of its length where the number is made.

    Returns: in their order the cards, or why one was not made: CardNumberTaken, BinDisabled, BinReserved, BinExhausted.
    """
    ranges = find_ranges(session, {new.digits for new in wanted})
    outcomes: dict[int, Card | Conflict] = {}
    sources = _sources(session, cipher, wanted, ranges, outcomes)
    while pending := [n for n in range(len(wanted)) if n not in outcomes]:
        chosen: dict[str, int] = {}
        for n in pending:
            number = next(sources[n], None)
            if number is None:
                outcomes[n] = CardNumberTaken() if wanted[n].number else BinExhausted()
            else:
                chosen.setdefault(number, n)  # whoever comes second asks for another one, if there is one
        inserted = _insert(session, cipher, {number: _details(wanted[n], ranges) for number, n in chosen.items()})
        outcomes |= {chosen[number]: card for number, card in inserted.items()}
    return [outcomes[n] for n in range(len(wanted))]


def _sources(
    session: Session,
    cipher: NumberCipher,
    wanted: Sequence[NewCard],
    ranges: dict[str, BinRange | None],
    outcomes: dict[int, Card | Conflict],
) -> list[Iterator[str]]:
    """Return for each card the numbers that may be its own; cards under one BIN share theirs. Notes refusals."""
    of_bins: dict[str, Iterator[str]] = {}
    sources: list[Iterator[str]] = []
    for n, new in enumerate(wanted):
        if new.number is not None:
            sources.append(iter([new.number]))
            continue
        found = ranges[new.digits]
        try:
            require_open_range(found, merchant_id=new.merchant_id)
        except Conflict as refusal:
            outcomes[n] = refusal
        if new.digits not in of_bins:
            sharing = sum(other.bin == new.digits for other in wanted)
            length = None if found is None else found.length
            of_bins[new.digits] = _candidates(session, cipher, new.digits, length, count=sharing)
        sources.append(of_bins[new.digits])
    return sources


def _candidates(session: Session, cipher: NumberCipher, bin_: str, length: int | None, *, count: int) -> Iterator[str]:
    """Yield numbers under a BIN that may be free, but none under a longer BIN that is registered for itself."""
    not_ours = tuple(list_bins_within(session, bin_))
    filler_length = numbers.filler_length(bin_, length)

    def numbers_of(fillers: Iterable[int]) -> Iterator[str]:
        made = (numbers.complete_number(bin_, str(filler).zfill(filler_length)) for filler in fillers)
        return (number for number in made if not number.startswith(not_ours))

    in_all = 10**filler_length
    if in_all > NUMBERS_LOOKED_THROUGH_MAX:
        tries = NUMBERS_LOOKED_THROUGH_MAX + NUMBER_ATTEMPTS_MAX * count
        drawn = numbers_of(secrets.randbelow(in_all) for _ in range(tries))
        yield from islice(drawn, NUMBER_ATTEMPTS_MAX * count)
        return
    by_index = {index: number for number in numbers_of(range(in_all)) for index in cipher.indexes(number)}
    taken = session.scalars(select(Card.number_index).where(Card.number_index.in_(by_index)))
    free = sorted(set(by_index.values()) - {by_index[index] for index in taken})
    secrets.SystemRandom().shuffle(free)
    yield from free


def _details(new: NewCard, ranges: dict[str, BinRange | None]) -> dict[str, str]:
    found = ranges[new.digits]
    brand = numbers.brand_of(new.digits) if found is None else found.brand
    return {"holder_name": new.holder_name, "currency": new.currency, "expiry": new.expiry, "brand": brand}


def _insert(session: Session, cipher: NumberCipher, wanted: dict[str, dict[str, str]]) -> dict[str, Card]:
    """Insert cards with these numbers, and return those that were free, also of what commits while we wait for it."""
    indexes = {number: cipher.indexes(number) for number in wanted}
    taken = _those_under_other_keys(session, indexes)
    rows = [_row(cipher, number, details) for number, details in wanted.items() if number not in taken]
    if not rows:
        return {}
    rows.sort(
        key=lambda row: bytes(row["number_index"])
    )  # all in one order, so that none wait for each other in a ring
    statement = insert(Card).on_conflict_do_nothing(constraint="uq_cards_number_index").returning(Card)
    by_index = {bytes(card.number_index): card for card in session.scalars(statement, rows)}
    return {number: by_index[own] for number, (own, *_) in indexes.items() if own in by_index}


def _row(cipher: NumberCipher, number: str, details: dict[str, str]) -> dict[str, Any]:
    card_id = new_id("car")
    sealed = cipher.seal(number, card_id=card_id)
    return {
        "id": card_id,
        "number_index": cipher.index(number),
        "number_sealed": sealed.sealed,
        "number_key_id": sealed.key_id,
        "number_masked": numbers.mask(number),
        "bin": number[: numbers.BIN_DIGITS_SHOWN],
        "last4": number[-numbers.LAST_DIGITS_SHOWN :],
        "status": Status.INACTIVE.value,
        **details,
    }


def _those_under_other_keys(session: Session, indexes: dict[str, list[bytes]]) -> set[str]:
    """Return which of these numbers cards have that are indexed by a key that is not the current one.

    While keys change, the index is not unique by itself: two processes may hold different keys for the current one.
    So whoever makes a card with a number is alone with that number until its transaction ends.
    """
    by_other = {other: number for number, (_, *others) in indexes.items() for other in others}
    if not by_other:
        return set()
    keys = [int.from_bytes(min(of_number)[:8], signed=True) for of_number in indexes.values()]
    session.execute(_LOCK_NUMBERS, {"keys": keys})
    found = session.scalars(select(Card.number_index).where(Card.number_index.in_(by_other)))
    return {by_other[bytes(index)] for index in found}
