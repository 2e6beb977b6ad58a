"""The tables of telegram. Chat ids are Telegram's own 64-bit numbers; outside they are strings like every id."""

from datetime import datetime
from decimal import Decimal

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Numeric, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from services.telegram.domain import threshold_text
from shared.contracts.telegram import AdjustmentRule, BindingView, DeviceRule, LargeChangeRule, NotificationView
from shared.times import rfc3339

ALL_CHATS = 0
"""The row of `pace` that stands for all chats together; no chat has this id."""


class Base(DeclarativeBase):
    """The tables of this service."""

    type_annotation_map = {datetime: TIMESTAMP(timezone=True), int: BigInteger}


class Binding(Base):
    """A merchant bound to a group."""

    __tablename__ = "bindings"
    __table_args__ = (
        UniqueConstraint("chat_id", name="uq_bindings_chat_id"),
        CheckConstraint("status in ('active', 'disabled')", name="ck_bindings_status"),
        CheckConstraint("language in ('en', 'zh')", name="ck_bindings_language"),
        Index("ix_bindings_merchant_id", "merchant_id", text("id desc")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    merchant_id: Mapped[str]
    chat_id: Mapped[int]
    title: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="active")
    status_reason: Mapped[str | None]
    language: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    def view(self) -> BindingView:
        """Return what others may know of the binding."""
        return {
            "id": self.id,
            "merchant_id": self.merchant_id,
            "chat_id": str(self.chat_id),
            "title": self.title,
            "status": self.status,
            "status_reason": self.status_reason,
            "language": self.language,
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
        }


class LargeChange(Base):
    """The rule `large_change` of a binding; without a row it is off."""

    __tablename__ = "large_change_rules"
    __table_args__ = (CheckConstraint("threshold > 0", name="ck_large_change_rules_threshold"),)

    binding_id: Mapped[str] = mapped_column(
        ForeignKey("bindings.id", name="fk_large_change_rules_binding_id", ondelete="CASCADE"), primary_key=True
    )
    enabled: Mapped[bool]
    threshold: Mapped[Decimal | None] = mapped_column(Numeric(20, 6))

    def view(self) -> LargeChangeRule:
        """Return the rule as others may know it."""
        threshold = None if self.threshold is None else threshold_text(self.threshold)
        return {"enabled": self.enabled, "threshold": threshold}


class Adjustment(Base):
    """The rule `adjustment` of a binding; without a row it is off."""

    __tablename__ = "adjustment_rules"

    binding_id: Mapped[str] = mapped_column(
        ForeignKey("bindings.id", name="fk_adjustment_rules_binding_id", ondelete="CASCADE"), primary_key=True
    )
    enabled: Mapped[bool]

    def view(self) -> AdjustmentRule:
        """Return the rule as others may know it."""
        return {"enabled": self.enabled}


class DeviceEdge(Base):
    """The rule `device` of a binding; without a row it is off."""

    __tablename__ = "device_rules"

    binding_id: Mapped[str] = mapped_column(
        ForeignKey("bindings.id", name="fk_device_rules_binding_id", ondelete="CASCADE"), primary_key=True
    )
    enabled: Mapped[bool]

    def view(self) -> DeviceRule:
        """Return the rule as others may know it."""
        return {"enabled": self.enabled}


class Pace(Base):
    """How soon the next message may go to a chat, or, in the row `ALL_CHATS`, to any.

    theoretical_at: the arrival time of the generic cell rate algorithm; behind it by no more than the burst's
    worth of intervals, a message may go. paused_until: Telegram asked us to wait so long.
    """

    __tablename__ = "pace"

    chat_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    theoretical_at: Mapped[datetime] = mapped_column(server_default=text("'epoch'"))
    paused_until: Mapped[datetime] = mapped_column(server_default=text("'epoch'"))


class Notification(Base):
    """One message to one group.

    due_at: when it may be tried next; while an attempt runs, when its lease ends. lease_token: names the running
    attempt, and stands still when its sender died. failures: attempts that count towards giving up.
    may_be_repeat: an earlier attempt ended without an answer, so the group may have the message already.
    """

    __tablename__ = "notifications"
    __table_args__ = (
        UniqueConstraint("event_id", "entry_id", "binding_id", name="uq_notifications_source"),
        CheckConstraint("status in ('queued', 'sent', 'failed', 'dead', 'suppressed')", name="ck_notifications_status"),
        CheckConstraint("type in ('large_change', 'adjustment', 'device', 'test')", name="ck_notifications_type"),
        CheckConstraint("(status = 'sent') = (message_id is not null)", name="ck_notifications_sent"),
        Index("ix_notifications_merchant_id", "merchant_id", text("id desc")),
        Index("ix_notifications_binding_id", "binding_id", text("id desc")),
        Index("ix_notifications_due", "chat_id", "due_at", postgresql_where=text("status in ('queued', 'failed')")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    binding_id: Mapped[str]
    merchant_id: Mapped[str]
    chat_id: Mapped[int]
    type: Mapped[str]
    text: Mapped[str]
    event_id: Mapped[str | None]
    entry_id: Mapped[str | None]
    status: Mapped[str] = mapped_column(server_default="queued")
    attempts: Mapped[int] = mapped_column(server_default="0")
    failures: Mapped[int] = mapped_column(server_default="0")
    may_be_repeat: Mapped[bool] = mapped_column(server_default="false")
    due_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    lease_token: Mapped[str | None]
    last_error: Mapped[str | None]
    message_id: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    sent_at: Mapped[datetime | None]

    def view(self) -> NotificationView:
        """Return what others may know of the notification."""
        is_waiting = self.status in ("queued", "failed")
        return {
            "id": self.id,
            "binding_id": self.binding_id,
            "merchant_id": self.merchant_id,
            "chat_id": str(self.chat_id),
            "type": self.type,
            "text": self.text,
            "status": self.status,
            "attempts": self.attempts,
            "last_error": self.last_error,
            "message_id": self.message_id,
            "event_id": self.event_id,
            "entry_id": self.entry_id,
            "created_at": rfc3339(self.created_at),
            "next_attempt_at": rfc3339(self.due_at) if is_waiting else None,
            "sent_at": None if self.sent_at is None else rfc3339(self.sent_at),
        }
