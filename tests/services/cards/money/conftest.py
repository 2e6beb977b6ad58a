"""Cards with a real ledger beside them, over a line that can be made to fail."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from services.cards import queries, usecases
from services.cards.cipher import NumberCipher
from services.cards.domain.transfers import Direction
from services.cards.money import carrying
from services.ledger.queries.entries import read_trial_balance
from services.ledger.usecases.card_transfers import transfer_card_money
from services.ledger.verification import prove
from shared.database import asks_to_retry
from shared.errors import DeadlineExceeded, InternalError, ServiceError, Unavailable
from shared.passport import Passport
from shared.rpc.wire import Answer, Call, current_call
from tests.conftest import AURORA, person
from tests.services.cards.conftest import add_merchants
from tests.services.ledger.conftest import THRESHOLD, change, own_ledger, post_all, single

ALICE = person("Alice", "administrator", None)


def committed(engine: sa.Engine, work: Callable[[Session], Any]) -> Any:
    """Do work in a transaction of its own."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        return work(session)


class Ledger:
    """The ledger's own use case behind a line. `faults` are what happens to the next calls.

    away: it is not there. lost: it does the work, and the answer is lost. broken: it says that it failed.
    `meanwhile` is done once, while the next answer is on its way.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.faults: list[str | None] = []
        self.asked: list[dict[str, Any]] = []
        self.meanwhile: Callable[[], None] | None = None

    def call(self, method: str, *, passport: Passport, timeout: float, **arguments: Any) -> Any:
        assert method == "transfer_card_money"
        assert timeout > 0
        passport.require("cards:operate")
        self.asked.append(arguments)
        fault = self.faults.pop(0) if self.faults else None
        if fault == "away":
            raise Unavailable
        if fault == "broken":
            raise InternalError
        outcome = committed(self.engine, lambda s: transfer_card_money(s, passport, threshold=THRESHOLD, **arguments))
        if fault == "lost":
            raise DeadlineExceeded
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return outcome

    def fund(self, amount: str, merchant_id: str = AURORA) -> None:
        """Put money into a merchant's own account."""
        recharge = change(amount=amount, user_id=None, merchant_id=merchant_id)
        committed(self.engine, lambda session: post_all(session, single(recharge)))

    def balance(self, holder_id: str) -> int:
        """Return what a card or a merchant has, in minor units."""
        query = sa.text("select coalesce(sum(balance), 0) from accounts where holder_id = :holder_id")
        with self.engine.connect() as connection:
            return int(connection.execute(query, {"holder_id": holder_id}).scalar_one())

    def prove(self) -> None:
        """Check that the books are right: chains, sums, and the trial balance."""
        report = committed(self.engine, lambda session: prove(session, mode="full"))
        assert report["faults"] == []
        trial = committed(self.engine, lambda session: read_trial_balance(session, ALICE))
        assert {row["sum"] for row in trial["items"]} <= {"0"}


class Desk:
    """What carrying needs of the process, with cards and their transfers to look at."""

    def __init__(self, engine: sa.Engine, ledger: Ledger, cipher: NumberCipher) -> None:
        self.engine, self.ledger, self.cipher = engine, ledger, cipher

    def run(self, work: Callable[[Session], Any]) -> Any:
        """Do work in a transaction, again where the database asks for that."""
        while True:
            try:
                return committed(self.engine, work)
            except DBAPIError as error:
                if not asks_to_retry(error):
                    raise

    def card(self, *, merchant_id: str | None = AURORA, is_active: bool = True, **fields: Any) -> str:
        """Return a fresh card's id."""
        card = {"bin": "411111", "holder_name": "Ada", "currency": "CNY", "merchant_id": merchant_id} | fields
        card_id = str(self.run(lambda s: usecases.create_card(s, ALICE, self.cipher, **card))["id"])
        if is_active:
            self.run(lambda s: usecases.activate_card(s, ALICE, card_id=card_id))
        return card_id

    def move(
        self,
        card_id: str,
        direction: str,
        amount: str,
        *,
        key: str | None = None,
        passport: Passport = ALICE,
        zone_name: str = "UTC",
    ) -> Answer:
        """Move money as a call of its own does."""
        call = Call(
            service="cards",
            method={"top_up": "top_up_card", "withdrawal": "withdraw_from_card"}[direction],
            passport=passport,
            arguments={"card_id": card_id, "amount": amount},
            idempotency_key=key,
        )
        token = current_call.set(call)
        try:
            return carrying.move_money(
                self, call, card_id=card_id, direction=Direction(direction), amount=amount, zone_name=zone_name
            )
        finally:
            current_call.reset(token)

    def attempt(self, *args: Any, **kwargs: Any) -> str:
        """Move money, and say what came of it: `posted`, or the refusal's code."""
        try:
            return str(self.move(*args, **kwargs).result["state"])
        except ServiceError as refusal:
            return refusal.code

    def complete(self) -> None:
        """Let the time pass that transfers wait, and tick."""
        self.run(lambda s: s.execute(sa.text("update card_transfers set next_attempt_at = clock_timestamp()")))
        carrying.complete_transfers(self)

    def view(self, card_id: str) -> Any:
        """Return the card."""
        return self.run(lambda s: queries.get_card(s, ALICE, card_id=card_id))

    def states(self, card_id: str) -> list[str]:
        """Return the states of a card's transfers, the first first."""
        query = sa.text("select state from card_transfers where card_id = :card_id order by created_at, id")
        return list(self.run(lambda s: s.scalars(query, {"card_id": card_id}).all()))

    def told(self) -> list[str]:
        """Return the names of the events about money, in their order."""
        query = sa.text("select routing_key from outbox where routing_key ~ '(ToppedUp|Withdrawn|Refused)' order by id")
        return [key.removeprefix("cards.") for key in self.run(lambda s: s.scalars(query).all())]


@pytest.fixture(scope="module")
def ledger_engine(server_url: str) -> Iterator[sa.Engine]:
    """An engine on a ledger that only this module has."""
    with own_ledger(server_url) as engine:
        yield engine


@pytest.fixture
def desk(engine_of: Callable[[str], sa.Engine], ledger_engine: sa.Engine, cipher: NumberCipher) -> Iterator[Desk]:
    """Cards that have heard of two merchants, and a ledger in which Aurora has 1 000.00 CNY."""
    engine = engine_of("cards")
    committed(engine, add_merchants)
    ledger = Ledger(ledger_engine)
    ledger.fund("1000.00")
    yield Desk(engine, ledger, cipher)
    sums = "posting_deltas, system_account_totals, hourly_totals"
    for database, tables in (
        (engine, "cards, outbox, merchant_copies, idempotency_keys"),
        (ledger_engine, f"accounts, entries, card_transfers, verified_accounts, {sums}"),
    ):
        with database.begin() as connection:
            connection.execute(sa.text(f"truncate {tables} cascade"))
