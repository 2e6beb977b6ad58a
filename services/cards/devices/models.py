"""The tables of devices that the ORM maps; the log is written and read by SQL, as its rows are many."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Identity
from sqlalchemy.orm import Mapped, mapped_column

from services.cards.models import Base


class Device(Base):
    """A device of a merchant. Its status repeats whether it has open bindings, unless it is blocked."""

    __tablename__ = "devices"

    id: Mapped[str] = mapped_column(primary_key=True)
    merchant_id: Mapped[str]
    name: Mapped[str]
    platform: Mapped[str]
    fingerprint: Mapped[str]
    status: Mapped[str]
    status_reason: Mapped[str | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class CardDevice(Base):
    """The half-open interval during which a device was bound to a card; an open end is a present binding."""

    __tablename__ = "card_devices"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    card_id: Mapped[str] = mapped_column(ForeignKey("cards.id"))
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    bound_at: Mapped[datetime]
    unbound_at: Mapped[datetime | None]
    bound_by: Mapped[str]
    unbound_by: Mapped[str | None]
    unbound_because: Mapped[str | None]


class Presence(Base):
    """When a device was last heard of, and whether its silence was told. Written by heartbeats alone and often.

    watched_since: since when going offline is told of; None while it is not.
    """

    __tablename__ = "device_presence"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    merchant_id: Mapped[str]
    last_seen_at: Mapped[datetime | None]
    watched_since: Mapped[datetime | None]
    is_offline: Mapped[bool]
    offline_at: Mapped[datetime | None]
