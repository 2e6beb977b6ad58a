"""What others may know of BIN ranges: their views, errors, events."""

from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

from shared.errors import Conflict, NotFound
from shared.events import Event


class BinView(TypedDict):
    """Under which first digits cards are made. `merchant_id`: for whom alone, None for everybody."""

    bin: str
    brand: str
    length: int
    status: str
    merchant_id: str | None
    created_at: str
    updated_at: str


class BinPage(TypedDict):
    """One page of BIN ranges, the latest first."""

    items: list[BinView]
    next_cursor: str | None


class BinNotFound(NotFound):
    """There is no such BIN."""


class BinTaken(Conflict):
    """This BIN is registered already."""


class BinDisabled(Conflict):
    """No cards are made under this BIN at present."""


class BinReserved(Conflict):
    """This BIN is another merchant's."""


@dataclass(frozen=True, kw_only=True)
class _OfBin:
    """What every event about a BIN range says."""

    service: ClassVar[str] = "cards"
    resource_type: ClassVar[str] = "bin"

    bin: str
    merchant_id: str | None

    def resource_id(self) -> str:
        """Return the BIN."""
        return self.bin


@dataclass(frozen=True, kw_only=True)
class BinCreated(_OfBin, Event):
    """A BIN range was registered."""

    brand: str
    length: int
    status: str


@dataclass(frozen=True, kw_only=True)
class BinUpdated(_OfBin, Event):
    """A BIN range's brand, length, status or merchant changed; cards made before stay as they are."""

    changes: dict[str, Any]
