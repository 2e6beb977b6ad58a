"""The table of a card's transfers."""

from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import BigInteger, ForeignKey, func
from sqlalchemy.orm import Mapped, mapped_column

from services.cards.domain.transfers import Direction, State
from services.cards.models import Base
from shared.contracts.cards import TransferView
from shared.errors import ServiceError
from shared.money import format_minor
from shared.passport import Passport
from shared.rpc.wire import Call
from shared.times import rfc3339

METHODS = {Direction.TOP_UP: "top_up_card", Direction.WITHDRAWAL: "withdraw_from_card"}


class Transfer(Base):
    """One transfer, and who asked for it, so that it can be completed on their behalf.

    `refusal` is the error as it crosses the bus. Until `next_attempt_at` whoever asked the ledger last is waited for.
    """

    __tablename__ = "card_transfers"

    id: Mapped[str] = mapped_column(primary_key=True)
    card_id: Mapped[str] = mapped_column(ForeignKey("cards.id", name="fk_card_transfers_card_id"))
    merchant_id: Mapped[str]
    direction: Mapped[str]
    amount: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str]
    state: Mapped[str]
    refusal: Mapped[str | None]
    balance: Mapped[int | None] = mapped_column(BigInteger)
    idempotency_key: Mapped[str | None]
    request_hash: Mapped[str]
    actor_id: Mapped[str]
    actor_name: Mapped[str]
    actor_type: Mapped[str]
    request_id: Mapped[str]
    ip: Mapped[str]
    user_agent: Mapped[str]
    attempts: Mapped[int]
    next_attempt_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    settled_at: Mapped[datetime | None]

    def error(self) -> ServiceError | None:
        """Return the refusal of a transfer that was refused."""
        return None if self.refusal is None else ServiceError.from_wire(orjson.loads(self.refusal))

    def order(self) -> dict[str, Any]:
        """Return what the ledger is asked to do."""
        return {
            "transfer_id": self.id,
            "card_id": self.card_id,
            "merchant_id": self.merchant_id,
            "direction": self.direction,
            "amount": format_minor(self.amount, self.currency),
            "currency": self.currency,
        }

    def call(self) -> Call:
        """Return the call that asked for the transfer, as far as it is needed to complete it: who, and in which."""
        passport = Passport(
            actor_id=self.actor_id,
            actor_name=self.actor_name,
            actor_type=self.actor_type,
            permissions={"cards": "operate"},
            merchants=frozenset({self.merchant_id}),
            ip=self.ip,
            user_agent=self.user_agent,
            request_id=self.request_id,
        )
        return Call(
            service="cards",
            method=METHODS[Direction(self.direction)],
            passport=passport,
            arguments={},
            idempotency_key=self.idempotency_key,
        )

    def view(self) -> TransferView:
        """Return the transfer as others may know it."""
        error = self.error()
        return {
            "transfer_id": self.id,
            "card_id": self.card_id,
            "merchant_id": self.merchant_id,
            "direction": self.direction,
            "amount": format_minor(self.amount, self.currency),
            "currency": self.currency,
            "state": State(self.state).value,
            "balance": None if self.balance is None else format_minor(self.balance, self.currency),
            "refusal": None if error is None else {"code": error.code, "detail": error.detail},
            "requested_by": self.actor_name,
            "created_at": rfc3339(self.created_at),
            "settled_at": None if self.settled_at is None else rfc3339(self.settled_at),
        }
