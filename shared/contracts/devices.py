"""What others may know of the devices of cards: views, errors, events. Devices belong to the cards service."""

from dataclasses import dataclass
from typing import Any, ClassVar, Final, NotRequired, TypedDict

from shared.errors import Conflict, InvalidRequest, NotFound
from shared.events import Event

DEVICE_STATUSES: Final = ("bound", "blocked", "unbound")
CONNECTIONS: Final = ("online", "late", "offline")
LOG_SOURCES: Final = ("device", "system")
ROW_OUTCOMES: Final = ("stored", "duplicate", "refused")
HEARTBEAT_OUTCOMES: Final = ("seen", "not_found")
LOG_ROWS_MAX: Final = 1_000
HEARTBEATS_MAX: Final = 1_000


class DeviceView(TypedDict):
    """A device of a merchant, and the cards that it is bound to now.

    connection: online, late or offline by its last heartbeat; None while it is not bound, or was never heard of.
    bound_at: since when it has been bound to the first of its cards; None while it is bound to none.
    """

    device_id: str
    merchant_id: str
    name: str
    platform: str
    fingerprint: str
    status: str
    status_reason: str | None
    connection: str | None
    card_ids: list[str]
    bound_at: str | None
    last_seen_at: str | None
    created_at: str
    updated_at: str


class DevicePage(TypedDict):
    """One page of devices, newest first."""

    items: list[DeviceView]
    next_cursor: str | None


class BoundDeviceView(TypedDict):
    """A device on a card, and the half-open interval of this binding; without an end it is bound still.

    unbound_because: `unbound`, `card_closed` or `card_assigned`.
    """

    device_id: str
    card_id: str
    name: str
    platform: str
    fingerprint: str
    status: str
    connection: str | None
    bound_at: str
    unbound_at: str | None
    unbound_because: str | None
    last_seen_at: str | None


class BoundDevicePage(TypedDict):
    """One page of a card's devices, the newest binding first."""

    items: list[BoundDeviceView]
    next_cursor: str | None


class BoundCardView(TypedDict):
    """A card that a device is or was bound to, and the interval of this binding."""

    card_id: str
    device_id: str
    number_masked: str
    bound_at: str
    unbound_at: str | None
    unbound_because: str | None


class BoundCardPage(TypedDict):
    """One page of a device's cards, the newest binding first."""

    items: list[BoundCardView]
    next_cursor: str | None


class DeviceLogView(TypedDict):
    """One row of the device log: what a device says that it did, or (`source` is `system`) what was done to it.

    time: when it happened, by the clock of the device, or ours. received_at: when we wrote it.
    """

    device_id: str
    event_id: str
    merchant_id: str
    card_id: str | None
    source: str
    action: str
    result: str
    ip: str | None
    detail: str | None
    actor_name: str | None
    time: str
    received_at: str


class DeviceLogPage(TypedDict):
    """One page of the device log, newest first."""

    items: list[DeviceLogView]
    next_cursor: str | None


class LogRowResult(TypedDict):
    """What became of one row. A duplicate was stored before; `errors` says why a row is refused."""

    event_id: str | None
    outcome: str
    errors: NotRequired[dict[str, list[str]]]


class LogRowsView(TypedDict):
    """What became of each row of a batch, in its order."""

    items: list[LogRowResult]
    stored: int
    duplicates: int
    refused: int


class HeartbeatView(TypedDict):
    """A heartbeat that has arrived, and within how many seconds the next is expected."""

    device_id: str
    status: str
    last_seen_at: str
    next_within_seconds: int


class HeartbeatResult(TypedDict):
    """What became of one heartbeat of a fleet."""

    device_id: str
    outcome: str
    status: str | None
    last_seen_at: str | None


class HeartbeatsView(TypedDict):
    """What became of each heartbeat of a fleet, in their order."""

    items: list[HeartbeatResult]
    seen: int
    not_found: int
    next_within_seconds: int


class DeviceNotFound(NotFound):
    """There is no such device."""


class DeviceNotNamed(InvalidRequest):
    """Name a device by its id, or tell a new one's fingerprint, name and platform."""


class InvalidLogBatch(InvalidRequest):
    """A batch of log rows is a list of 1 to 1 000 objects."""


class LogSearchTooBroad(InvalidRequest):
    """This search takes too long: give it a narrower time, a device or a card."""


class CardHasNoMerchant(Conflict):
    """A card gets devices when it has a merchant."""


class DeviceOfOtherMerchant(Conflict):
    """A device belongs to one merchant, and is bound to that merchant's cards only."""


class DeviceIsBlocked(Conflict):
    """The device is blocked."""

    code = "device_blocked"


class DeviceAlreadyBound(Conflict):
    """The device is bound to this card already."""


class DeviceNotBound(Conflict):
    """The device is not bound to this card."""


class CardDeviceLimitReached(Conflict):
    """The card is bound to as many devices as a card may be."""


class DeviceCardLimitReached(Conflict):
    """The device is bound to as many cards as a device may be."""


@dataclass(frozen=True, kw_only=True)
class _OfDevice:
    """What every event about one device says."""

    service: ClassVar[str] = "cards"
    resource_type: ClassVar[str] = "device"

    device_id: str
    merchant_id: str
    name: str


@dataclass(frozen=True, kw_only=True)
class DeviceBound(_OfDevice, Event):
    """A device is bound to a card."""

    card_id: str
    platform: str


@dataclass(frozen=True, kw_only=True)
class DeviceUnbound(_OfDevice, Event):
    """A device is no longer bound to a card: somebody unbound it, or the card was closed or changed hands."""

    card_id: str
    because: str
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class DeviceUpdated(_OfDevice, Event):
    """A device's name or platform changed."""

    changes: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class DeviceBlocked(_OfDevice, Event):
    """A device may not be used until it is unblocked."""

    reason: str
    changes: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class DeviceUnblocked(_OfDevice, Event):
    """A blocked device may be used again."""

    reason: str | None
    changes: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class DeviceWentOffline(_OfDevice, Event):
    """A device has not been heard of for its interval and its grace; told once until it comes back."""

    last_seen_at: str
    silent_seconds: int


@dataclass(frozen=True, kw_only=True)
class DeviceCameOnline(_OfDevice, Event):
    """A device that was told to be offline is heard of again."""

    last_seen_at: str
    silent_seconds: int


@dataclass(frozen=True, kw_only=True)
class DeviceLogsStored(_OfDevice, Event):
    """A device's program sent rows of its log, of which some were new."""

    stored: int
    duplicates: int
    refused: int
