"""Calls of the cards service about the money of cards. Cards says which card is whose; the ledger moves and tells."""

from typing import Any

from sqlalchemy.orm import Session

from services.ledger.calls.dependencies import LedgerDependencies
from services.ledger.queries import entries as queries
from services.ledger.usecases import card_transfers
from services.ledger.usecases.postings import FIRST_TIME
from shared.contracts.ledger import AccountView, CardTransferOutcome, EntryPage
from shared.passport import Passport
from shared.rpc.entrypoints import command, query


class CardCalls(LedgerDependencies):
    """The accounts of cards."""

    @command("cards:operate")
    def transfer_card_money(self, session: Session, passport: Passport, **transfer: Any) -> CardTransferOutcome:
        return card_transfers.transfer_card_money(session, passport, threshold=self.threshold(), **transfer)

    @query("cards:read")
    def find_card_account(
        self, session: Session, passport: Passport, *, card_id: str, merchant_id: str, currency: str
    ) -> AccountView | None:
        return queries.find_card_account(session, passport, card_id=card_id, merchant_id=merchant_id, currency=currency)

    @query("cards:read")
    def list_card_balance_logs(
        self,
        session: Session,
        passport: Passport,
        *,
        card_id: str,
        limit: int,
        cursor: str | None = None,
        from_time: str | None = None,
        date: str | None = None,
        **filters: Any,
    ) -> EntryPage:
        first = from_time if from_time or date else FIRST_TIME
        wanted = self.log_filter(date=date, from_time=first, **filters)
        return queries.list_balance_logs(session, passport, wanted, card_id=card_id, limit=limit, cursor=cursor)
