"""The table of BIN ranges."""

from datetime import datetime

from sqlalchemy import BigInteger, Identity
from sqlalchemy.orm import Mapped, mapped_column

from services.cards.models import Base
from shared.contracts.bins import BinView
from shared.times import rfc3339


class BinRange(Base):
    """The numbers that begin with `bin`, unless a longer one that begins so is registered, too."""

    __tablename__ = "bin_ranges"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    bin: Mapped[str]
    brand: Mapped[str]
    length: Mapped[int]
    status: Mapped[str]
    merchant_id: Mapped[str | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    def view(self) -> BinView:
        """Return what others may know of the range."""
        return {
            "bin": self.bin,
            "brand": self.brand,
            "length": self.length,
            "status": self.status,
            "merchant_id": self.merchant_id,
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
        }
