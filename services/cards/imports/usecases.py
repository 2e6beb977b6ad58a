"""Take in a file of cards, row by row: what one row cannot have keeps no other from its own."""

from typing import Any

from sqlalchemy.orm import Session

from services.cards import usecases
from services.cards.cipher import NumberCipher
from services.cards.domain.import_files import Row, check_row, is_assignment
from shared.contracts.card_imports import ImportedRowView, ImportView
from shared.contracts.cards import CardView
from shared.errors import ServiceError, Unavailable
from shared.passport import Passport


def import_cards(
    session: Session, passport: Passport, cipher: NumberCipher, *, rows: list[Row], is_dry_run: bool
) -> ImportView:
    """Make or assign the cards of a file, each row in a transaction of its own within the caller's.

    is_dry_run: say what would become of each row, and leave nothing of it.
    Emits: what create_card and assign_card do, for the rows that succeeded.
    """
    items: list[ImportedRowView] = []
    counts = {"created": 0, "assigned": 0, "refused": 0}
    whole = session.begin_nested()
    for row in rows:
        try:
            with session.begin_nested():
                card = _take_row(session, passport, cipher, row)
        except Unavailable:
            raise
        except ServiceError as refusal:
            counts["refused"] += 1
            items.append(_refused(row, refusal))
            continue
        counts["assigned" if is_assignment(row) else "created"] += 1
        # The id of a card that was only made for show would lead nowhere.
        card_id = None if is_dry_run and not is_assignment(row) else card["id"]
        number_masked = None if is_dry_run and "bin" in row.cells else card["number_masked"]
        items.append({"line": row.line, "card_id": card_id, "number_masked": number_masked, "error": None})
    if is_dry_run:
        whole.rollback()
    else:
        whole.commit()
    return {"is_dry_run": is_dry_run, **counts, "items": items}  # type: ignore[typeddict-item]


def _take_row(session: Session, passport: Passport, cipher: NumberCipher, row: Row) -> CardView:
    check_row(row)
    cells: dict[str, Any] = row.cells
    if is_assignment(row):
        return usecases.assign_card(session, passport, **cells)
    return usecases.create_card(session, passport, cipher, **cells)


def _refused(row: Row, refusal: ServiceError) -> ImportedRowView:
    error = {"code": refusal.code, "title": refusal.title, "detail": refusal.detail, "errors": refusal.errors}
    return {"line": row.line, "card_id": row.cells.get("card_id"), "number_masked": None, "error": error}  # type: ignore[typeddict-item]
