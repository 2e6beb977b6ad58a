"""Calls about BIN ranges."""

from typing import Any

from sqlalchemy.orm import Session

from services.cards.bins import queries, usecases
from shared.contracts.bins import BinPage, BinView
from shared.database import Database
from shared.passport import Passport
from shared.rpc.entrypoints import command, query


class BinCalls:
    """The BIN ranges of cards."""

    database: Database

    @query("cards:read")
    def list_bins(self, session: Session, passport: Passport, **filters: Any) -> BinPage:
        return queries.list_bins(session, passport, **filters)

    @command("cards:admin")
    def create_bin(self, session: Session, passport: Passport, **fields: Any) -> BinView:
        return usecases.create_bin(session, passport, **fields)

    @command("cards:admin")
    def update_bin(self, session: Session, passport: Passport, *, bin: str, **fields: Any) -> BinView:
        return usecases.update_bin(session, passport, bin=bin, **fields)
