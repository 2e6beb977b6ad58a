"""The table of what happened to cards. Its rows are only ever added."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Identity, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from services.cards.models import Base


class CardEvent(Base):
    """One thing that happened to a card. `merchant_id` is whose card it was then, or became."""

    __tablename__ = "card_events"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    card_id: Mapped[str]
    kind: Mapped[str]
    event: Mapped[str]
    occurred_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    merchant_id: Mapped[str | None]
    actor_id: Mapped[str]
    actor_name: Mapped[str]
    actor_type: Mapped[str]
    request_id: Mapped[str]
    reason: Mapped[str | None]
    changes: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    details: Mapped[dict[str, Any]] = mapped_column(JSONB)
