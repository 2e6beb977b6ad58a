"""Move card numbers from retired keys to the current one, a few at a time, while cards are used.

A card is locked only while its own number is sealed anew; reads do not notice. See docs/cards.md "Changing keys".
"""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.cards.cipher import NumberCipher, SealedNumber
from services.cards.models import Card
from shared import outbox
from shared.contracts.cards import CardKeysChanged, KeyUsageView

CARDS_PER_BATCH = 200

_MOVE = (
    sa.update(Card.__table__)  # type: ignore[arg-type]
    .where(Card.id == sa.bindparam("card_id"))
    .values(
        number_sealed=sa.bindparam("sealed"),
        number_key_id=sa.bindparam("key_id"),
        number_index=sa.bindparam("new_index"),
    )
)


def reseal_cards(session: Session, cipher: NumberCipher, *, count_max: int = CARDS_PER_BATCH) -> int:
    """Seal and index anew the numbers of some cards that are under a retired key. Returns: how many.

    Locks: those cards; ones that somebody else has locked are left for the next time.
    """
    under_retired = (
        sa.select(Card.id, Card.number_sealed, Card.number_key_id)
        .where(Card.number_key_id.in_(cipher.retired_key_ids))
        .limit(count_max)
        .with_for_update(skip_locked=True)
    )
    moves = []
    for card_id, sealed, key_id in session.execute(under_retired):
        number = cipher.open(SealedNumber(key_id, sealed), card_id=card_id)
        anew = cipher.seal(number, card_id=card_id)
        moves.append(
            {"card_id": card_id, "sealed": anew.sealed, "key_id": anew.key_id, "new_index": cipher.index(number)}
        )
    if moves:
        session.connection().execute(_MOVE, moves)
    return len(moves)


def count_key_usage(session: Session, cipher: NumberCipher) -> KeyUsageView:
    """Return how many card numbers are under which key, as this process knows the keys."""
    count = sa.func.count().label("cards")
    counted = session.execute(sa.select(Card.number_key_id, count).group_by(Card.number_key_id)).all()
    cards = dict.fromkeys(cipher.key_ids, 0) | {row.number_key_id: row.cards for row in counted}
    return {"current": cipher.key_id, "retired": cipher.retired_key_ids, "cards": cards}


def tell_keys_changed(session: Session, *, current: str, retired: list[str], reason: str) -> None:
    """Leave in the audit log that the keys of card numbers changed, and why. Emits: CardKeysChanged."""
    outbox.add(session, CardKeysChanged(key_id=current, retired=retired, reason=reason))
