"""Calls about a card's money: top up, withdraw, and read what the ledger has of it."""

from collections.abc import Callable
from typing import Any

from sqlalchemy.orm import Session

from services.cards.domain.transfers import Direction
from services.cards.money import carrying, queries
from services.cards.queries import find_card
from shared.contracts.cards import CardBalanceView, TransferPage
from shared.contracts.ledger import EntryPage
from shared.copies import Parameters
from shared.database import Database
from shared.passport import Passport
from shared.rpc.entrypoints import RpcClient, query, rpc
from shared.rpc.wire import Answer, current_call
from shared.ticks import every


class MoneyCalls:
    """The money of cards."""

    database: Database
    parameters: Parameters
    ledger = RpcClient("ledger")

    @rpc("cards:operate")
    def top_up_card(self, passport: Passport, *, card_id: str, amount: str) -> Answer:
        return self._move(card_id, Direction.TOP_UP, amount)

    @rpc("cards:operate")
    def withdraw_from_card(self, passport: Passport, *, card_id: str, amount: str) -> Answer:
        return self._move(card_id, Direction.WITHDRAWAL, amount)

    @query("cards:read")
    def list_card_transfers(self, session: Session, passport: Passport, **page: Any) -> TransferPage:
        return queries.list_card_transfers(session, passport, **page)

    @rpc("cards:read", is_repeatable=True)
    def get_card_balance(self, passport: Passport, *, card_id: str) -> CardBalanceView:
        # Counted first: a transfer that ends in between is then in both, and not in neither.
        card, under_way = self.run(lambda s: (find_card(s, passport, card_id), queries.count_under_way(s, card_id)))
        account = None
        if card.merchant_id is not None:
            account = self.ledger.call(
                "find_card_account",
                passport=passport,
                timeout=current_call.get().seconds_left,
                card_id=card_id,
                merchant_id=card.merchant_id,
                currency=card.currency,
            )
        return queries.balance_view(card, account, under_way)

    @rpc("cards:read", is_repeatable=True)
    def list_card_balance_logs(self, passport: Passport, *, card_id: str, **filters: Any) -> EntryPage:
        self.run(lambda session: find_card(session, passport, card_id))
        page: EntryPage = self.ledger.call(
            "list_card_balance_logs",
            passport=passport,
            timeout=current_call.get().seconds_left,
            card_id=card_id,
            **filters,
        )
        return page

    @every(seconds=1)
    def complete_transfers(self) -> None:
        carrying.complete_transfers(self)

    def run(self, work: Callable[[Session], Any]) -> Any:
        """Do work in a transaction."""
        return self.database.run(work)

    def _move(self, card_id: str, direction: Direction, amount: str) -> Answer:
        return carrying.move_money(
            self,
            current_call.get(),
            card_id=card_id,
            direction=direction,
            amount=amount,
            zone_name=str(self.parameters.get("system.timezone")),
        )
