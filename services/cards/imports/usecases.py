"""Take in a file of cards: what one row cannot have keeps no other from its own."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from services.cards.cipher import NumberCipher
from services.cards.domain.import_files import Row, check_row, is_assignment
from services.cards.models import Card
from services.cards.usecases import assign_cards, create_cards
from shared.contracts.card_imports import ImportedRowView, ImportView
from shared.errors import ServiceError
from shared.masking import mask_text
from shared.passport import Passport


def import_cards(
    session: Session, passport: Passport, cipher: NumberCipher, *, rows: Sequence[Row], is_dry_run: bool
) -> ImportView:
    """Make the cards of a file, then give those that exist to their merchants, in the order of the file.

    is_dry_run: say what would become of each row, and leave nothing of it.
    Emits: what create_card and assign_card do, for the rows that succeeded.
    """
    items: dict[int, ImportedRowView] = {}
    whole = session.begin_nested()
    fitting = [row for row in rows if _fits(row, items)]
    _create(session, passport, cipher, [row for row in fitting if not is_assignment(row)], items)
    for turn in _turns([row for row in fitting if is_assignment(row)]):
        _assign(session, passport, turn, items)
    created = sum(items[row.line]["error"] is None for row in rows if not is_assignment(row))
    assigned = sum(items[row.line]["error"] is None for row in rows if is_assignment(row))
    if is_dry_run:
        whole.rollback()
        for row in rows:
            _hide_what_is_not_there(row, items[row.line])
    else:
        whole.commit()
    return {
        "is_dry_run": is_dry_run,
        "created": created,
        "assigned": assigned,
        "refused": len(rows) - created - assigned,
        "items": [items[row.line] for row in rows],
    }


def _fits(row: Row, items: dict[int, ImportedRowView]) -> bool:
    try:
        check_row(row)
    except ServiceError as refusal:
        items[row.line] = _refused(row, refusal)
        return False
    return True


def _create(
    session: Session,
    passport: Passport,
    cipher: NumberCipher,
    rows: Sequence[Row],
    items: dict[int, ImportedRowView],
) -> None:
    outcomes = create_cards(session, passport, cipher, [row.cells for row in rows])
    for row, outcome in zip(rows, outcomes, strict=True):
        items[row.line] = _refused(row, outcome) if isinstance(outcome, ServiceError) else _done(row, outcome)


def _turns(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the rows in turns of one merchant and no card twice, so that those of a turn can be assigned together."""
    turns: list[list[Row]] = []
    card_ids: set[str] = set()
    for row in rows:
        merchant_id, card_id = row.cells["merchant_id"], row.cells["card_id"]
        if not turns or turns[-1][0].cells["merchant_id"] != merchant_id or card_id in card_ids:
            turns.append([])
            card_ids = set()
        turns[-1].append(row)
        card_ids.add(card_id)
    return turns


def _assign(session: Session, passport: Passport, rows: Sequence[Row], items: dict[int, ImportedRowView]) -> None:
    """Assign the cards of rows together; where one cannot be, halve them, until it stands alone."""
    merchant_id, card_ids = rows[0].cells["merchant_id"], [row.cells["card_id"] for row in rows]
    try:
        with session.begin_nested():
            assigned = assign_cards(session, passport, card_ids=card_ids, merchant_id=merchant_id)
    except ServiceError as refusal:
        if len(rows) == 1:
            items[rows[0].line] = _refused(rows[0], refusal)
            return
        middle = len(rows) // 2
        _assign(session, passport, rows[:middle], items)
        _assign(session, passport, rows[middle:], items)
        return
    masked = {card["id"]: card["number_masked"] for card in assigned["items"]}
    for row in rows:
        card_id = row.cells["card_id"]
        items[row.line] = {
            "line": row.line,
            "card_id": card_id,
            "number_masked": masked[card_id],
            "error": None,
        }


def _done(row: Row, card: Card) -> ImportedRowView:
    return {"line": row.line, "card_id": card.id, "number_masked": card.number_masked, "error": None}


def _refused(row: Row, refusal: ServiceError) -> ImportedRowView:
    card_id = row.cells.get("card_id")
    return {
        "line": row.line,
        # The answer is kept under its idempotency key, and a number may stand in the wrong column.
        "card_id": None if card_id is None else mask_text(card_id),
        "number_masked": None,
        "error": refusal.view(),
    }


def _hide_what_is_not_there(row: Row, item: ImportedRowView) -> None:
    """Leave out the id of a card that was only made for show, and a number that would not be its own."""
    if not is_assignment(row):
        item["card_id"] = None
    if "bin" in row.cells:
        item["number_masked"] = None
