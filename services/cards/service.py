"""The cards service on the bus: each method is one transaction around one use case or query."""

import time
from typing import Any

from sqlalchemy.orm import Session

from services.cards import queries, rotation, usecases
from services.cards.bins.calls import BinCalls
from services.cards.cipher import number_cipher
from services.cards.devices.calls import DeviceCalls
from services.cards.imports.calls import ImportCalls
from services.cards.money.calls import MoneyCalls
from services.cards.timeline import queries as timelines
from shared.contracts.card_timelines import TimelinePage
from shared.contracts.cards import (
    AssignmentPage,
    AssignmentsView,
    CardPage,
    CardView,
    KeyUsageView,
    ModuleDisabled,
    RevealedCardView,
)
from shared.contracts.settings import ParameterChanged
from shared.contracts.users import MerchantCreated, MerchantUpdated
from shared.copies import Merchants, Parameters
from shared.database import Database
from shared.events import Envelope
from shared.messaging import handles
from shared.passport import Passport
from shared.rpc.entrypoints import command, query
from shared.rpc.wire import Call
from shared.ticks import every

RESEAL_PAUSE_SECONDS = 0.02  # others' calls come first


class CardsService(BinCalls, DeviceCalls, ImportCalls, MoneyCalls):
    """Virtual cards, their numbers, their money and their devices."""

    name = "cards"

    database = Database()
    parameters = Parameters()
    merchants = Merchants()

    @property
    def is_enabled(self) -> bool:
        """Whether this installation uses cards."""
        return bool(self.parameters.get("modules.cards.enabled"))

    def admit(self, call: Call) -> None:
        """Take no call while cards are switched off, but those of whoever runs the system. Raises: ModuleDisabled."""
        if not self.is_enabled and call.passport.actor_type != "system":
            raise ModuleDisabled

    @query("cards:read")
    def list_cards(self, session: Session, passport: Passport, **filters: Any) -> CardPage:
        return queries.list_cards(session, passport, **filters)

    @query("cards:read")
    def search_card(self, session: Session, passport: Passport, *, number: str) -> CardPage:
        return queries.search_card(session, passport, number_cipher(), number=number)

    @query("cards:read")
    def get_card(self, session: Session, passport: Passport, *, card_id: str) -> CardView:
        return queries.get_card(session, passport, card_id=card_id)

    @query("cards:read")
    def list_assignments(self, session: Session, passport: Passport, **page: Any) -> AssignmentPage:
        return queries.list_assignments(session, passport, **page)

    @command("cards:operate")
    def create_card(self, session: Session, passport: Passport, **card: Any) -> CardView:
        return usecases.create_card(session, passport, number_cipher(), **card)

    @command("cards:operate")
    def update_card(self, session: Session, passport: Passport, *, card_id: str, **fields: Any) -> CardView:
        return usecases.update_card(session, passport, card_id=card_id, **fields)

    @command("cards:operate")
    def activate_card(self, session: Session, passport: Passport, *, card_id: str) -> CardView:
        return usecases.activate_card(session, passport, card_id=card_id)

    @command("cards:operate")
    def freeze_card(self, session: Session, passport: Passport, *, card_id: str, reason: str) -> CardView:
        return usecases.freeze_card(session, passport, card_id=card_id, reason=reason)

    @command("cards:operate")
    def unfreeze_card(self, session: Session, passport: Passport, *, card_id: str) -> CardView:
        return usecases.unfreeze_card(session, passport, card_id=card_id)

    @command("cards:operate")
    def close_card(self, session: Session, passport: Passport, *, card_id: str, reason: str) -> CardView:
        return usecases.close_card(session, passport, card_id=card_id, reason=reason)

    @command("cards:operate")
    def assign_card(self, session: Session, passport: Passport, *, card_id: str, merchant_id: str | None) -> CardView:
        return usecases.assign_card(session, passport, card_id=card_id, merchant_id=merchant_id)

    @command("cards:operate")
    def assign_cards(
        self, session: Session, passport: Passport, *, card_ids: list[str], merchant_id: str
    ) -> AssignmentsView:
        return usecases.assign_cards(session, passport, card_ids=card_ids, merchant_id=merchant_id)

    # Its answer holds the full number, which must lie nowhere but in its sealed column.
    @command("cards:admin", stores_answer=False)
    def reveal_card(self, session: Session, passport: Passport, *, card_id: str, reason: str) -> RevealedCardView:
        return usecases.reveal_card(session, passport, number_cipher(), card_id=card_id, reason=reason)

    @handles(ParameterChanged)
    def on_parameter_changed(self, session: Session, envelope: Envelope, event: ParameterChanged) -> None:
        self.parameters.take(session, event)

    @query("cards:read")
    def list_card_timeline(self, session: Session, passport: Passport, **filters: Any) -> TimelinePage:
        return timelines.list_card_timeline(session, passport, **filters)

    @query("cards:admin")
    def get_key_usage(self, session: Session, passport: Passport) -> KeyUsageView:
        return rotation.count_key_usage(session, number_cipher())

    @command("cards:admin")
    def tell_keys_changed(self, session: Session, passport: Passport, **change: Any) -> None:
        rotation.tell_keys_changed(session, **change)

    @every(seconds=1)
    def reseal_numbers(self) -> None:
        cipher = number_cipher()
        moved = bool(cipher.retired_key_ids)
        while moved:
            moved = self.database.run(lambda session: rotation.reseal_cards(session, cipher)) > 0
            time.sleep(RESEAL_PAUSE_SECONDS)

    @handles(MerchantCreated, MerchantUpdated)
    def on_merchant_changed(
        self, session: Session, envelope: Envelope, event: MerchantCreated | MerchantUpdated
    ) -> None:
        self.merchants.take(session, event)
