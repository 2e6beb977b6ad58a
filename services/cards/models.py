"""The tables of cards. The number stands in them only sealed, and as a keyed hash."""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from services.cards.cipher import SealedNumber
from services.cards.domain.limits import Limits
from services.cards.domain.states import Status
from shared.contracts.cards import AssignmentView, CardView
from shared.money import format_minor
from shared.times import rfc3339


class Base(DeclarativeBase):
    """The tables of this service."""

    type_annotation_map = {datetime: TIMESTAMP(timezone=True)}


class Card(Base):
    """A virtual card. `merchant_id` repeats the open assignment, for the filter that every query has.

    `balance` repeats the ledger's account as the card's last transfer left it, at the account's `balance_version`.
    """

    __tablename__ = "cards"
    __table_args__ = (
        UniqueConstraint("number_index", name="uq_cards_number_index"),
        CheckConstraint("status in ('inactive', 'active', 'frozen', 'closed')", name="ck_cards_status"),
        CheckConstraint("expiry ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'", name="ck_cards_expiry"),
        Index("ix_cards_merchant_id", "merchant_id", text("id desc")),
        Index("ix_cards_last4", "last4"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    number_index: Mapped[bytes] = mapped_column(LargeBinary)
    number_sealed: Mapped[bytes] = mapped_column(LargeBinary)
    number_key_id: Mapped[str]
    number_masked: Mapped[str]
    bin: Mapped[str]
    last4: Mapped[str]
    brand: Mapped[str]
    holder_name: Mapped[str]
    currency: Mapped[str]
    expiry: Mapped[str]
    status: Mapped[str]
    status_reason: Mapped[str | None]
    merchant_id: Mapped[str | None]
    balance: Mapped[int] = mapped_column(BigInteger, server_default="0")
    balance_version: Mapped[int] = mapped_column(BigInteger, server_default="0")
    limit_max_amount: Mapped[int | None] = mapped_column(BigInteger)
    limit_daily_amount: Mapped[int | None] = mapped_column(BigInteger)
    limit_daily_count: Mapped[int | None] = mapped_column(BigInteger)
    limit_monthly_amount: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    def sealed_number(self) -> SealedNumber:
        """Return the number as the cipher takes it."""
        return SealedNumber(self.number_key_id, self.number_sealed)

    def limits(self) -> Limits:
        """Return what may be put onto the card."""
        return Limits(self.limit_max_amount, self.limit_daily_amount, self.limit_daily_count, self.limit_monthly_amount)

    def set_limits(self, limits: Limits) -> None:
        """Say what may be put onto the card from now on."""
        self.limit_max_amount = limits.max_amount
        self.limit_daily_amount = limits.daily_amount
        self.limit_daily_count = limits.daily_count
        self.limit_monthly_amount = limits.monthly_amount

    def view(self) -> CardView:
        """Return what others may know of the card."""
        return {
            "id": self.id,
            "number_masked": self.number_masked,
            "last4": self.last4,
            "bin": self.bin,
            "brand": self.brand,
            "holder_name": self.holder_name,
            "currency": self.currency,
            "expiry": self.expiry,
            "status": Status(self.status).value,
            "status_reason": self.status_reason,
            "merchant_id": self.merchant_id,
            "balance": format_minor(self.balance, self.currency),
            "limits": self.limits().view(self.currency),
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
        }


class Assignment(Base):
    """The half-open interval during which a merchant held a card; an open end is the present holder."""

    __tablename__ = "card_assignments"
    __table_args__ = (
        Index("uq_card_assignments_open", "card_id", unique=True, postgresql_where=text("unassigned_at is null")),
        Index("ix_card_assignments_card_id", "card_id", text("id desc")),
        CheckConstraint("unassigned_at >= assigned_at", name="ck_card_assignments_order"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    card_id: Mapped[str] = mapped_column(ForeignKey("cards.id", name="fk_card_assignments_card_id"))
    merchant_id: Mapped[str]
    assigned_at: Mapped[datetime]
    unassigned_at: Mapped[datetime | None]
    assigned_by: Mapped[str]

    def view(self) -> AssignmentView:
        """Return the interval as others may know it."""
        return {
            "card_id": self.card_id,
            "merchant_id": self.merchant_id,
            "assigned_at": rfc3339(self.assigned_at),
            "unassigned_at": None if self.unassigned_at is None else rfc3339(self.unassigned_at),
        }
