"""The call that takes in a file of cards."""

from typing import Any

from sqlalchemy.orm import Session

from services.cards.cipher import number_cipher
from services.cards.domain.import_files import Row, read_rows
from services.cards.imports.usecases import import_cards
from shared.contracts.card_imports import ImportView
from shared.contracts.users import MerchantNotFound
from shared.copies import Merchants
from shared.database import Database
from shared.passport import Passport
from shared.rpc.entrypoints import carry_out, rpc
from shared.rpc.wire import Answer, current_call


class ImportCalls:
    """Cards by file."""

    database: Database
    merchants: Merchants

    @rpc("cards:operate")
    def import_cards(self, passport: Passport, *, text: str, dry_run: bool = False) -> Answer:
        rows = read_rows(text)
        self._hear_of_merchants(passport, rows)

        def take_in(_service: Any, session: Session, passport: Passport, **_arguments: Any) -> ImportView:
            return import_cards(session, passport, number_cipher(), rows=rows, is_dry_run=dry_run)

        return carry_out(self, current_call.get(), take_in)

    def _hear_of_merchants(self, passport: Passport, rows: list[Row]) -> None:
        """Ask for merchants that we have not heard of, outside the transaction; what does not exist fails its row."""
        for merchant_id in {row.cells.get("merchant_id", "") for row in rows}:
            if merchant_id and passport.sees(merchant_id):
                try:
                    self.merchants.ensure([merchant_id])
                except MerchantNotFound:
                    continue
