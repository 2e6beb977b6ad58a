"""What others may know of telegram: its views, its errors, its events. The bot's token stands in none of them."""

from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypedDict

from shared.errors import Conflict, InvalidRequest, NotFound
from shared.events import Event

BINDING_STATUSES: Final = ("active", "disabled")
LANGUAGES: Final = ("en", "zh")
NOTIFICATION_TYPES: Final = ("large_change", "adjustment", "device", "test")
NOTIFICATION_STATUSES: Final = ("queued", "sent", "failed", "dead", "suppressed")


class BindingView(TypedDict):
    """A merchant's group. `status_reason` is `bot_removed` or `chat_not_found` where Telegram said so."""

    id: str
    merchant_id: str
    chat_id: str
    title: str
    status: str
    status_reason: str | None
    language: str
    created_at: str
    updated_at: str


class BindingPage(TypedDict):
    """One page of bindings, newest first."""

    items: list[BindingView]
    next_cursor: str | None


class LargeChangeRule(TypedDict):
    """Tell the group of each balance change of at least `threshold`, in the change's own currency.

    threshold: None stands for the parameter `ledger.large_change_threshold`.
    """

    enabled: bool
    threshold: str | None


class AdjustmentRule(TypedDict):
    """Tell the group of each balance that the platform's staff adjusts, of any amount, and why."""

    enabled: bool


class DeviceRule(TypedDict):
    """Tell the group when a device of the merchant goes offline, and when it is back: once each."""

    enabled: bool


class RulesView(TypedDict):
    """The rules of a binding, by the type of notification."""

    large_change: LargeChangeRule
    adjustment: AdjustmentRule
    device: DeviceRule


class NotificationView(TypedDict):
    """One message to a group: `failed` will be tried again at `next_attempt_at`, `dead` only by hand."""

    id: str
    binding_id: str
    merchant_id: str
    chat_id: str
    type: str
    text: str
    status: str
    attempts: int
    last_error: str | None
    message_id: int | None
    event_id: str | None
    entry_id: str | None
    created_at: str
    next_attempt_at: str | None
    sent_at: str | None


class NotificationPage(TypedDict):
    """One page of notifications, newest first."""

    items: list[NotificationView]
    next_cursor: str | None


class BindingNotFound(NotFound):
    """There is no such binding."""


class NotificationNotFound(NotFound):
    """There is no such notification."""


class InvalidChatId(InvalidRequest):
    """A chat id is a whole number as Telegram writes it, such as "-1001234567890"."""


class InvalidThreshold(InvalidRequest):
    """A threshold is a decimal string above zero, with at most six fraction digits."""


class ChatAlreadyBound(Conflict):
    """This chat is bound already; a group belongs to one merchant."""


class BindingIsDisabled(Conflict):
    """The binding is disabled; enable it first."""

    code = "binding_disabled"


class NotificationAlreadySent(Conflict):
    """The notification was sent; nothing is sent twice."""


@dataclass(frozen=True, kw_only=True)
class _OfBinding:
    """What every event about one binding says."""

    service: ClassVar[str] = "telegram"
    resource_type: ClassVar[str] = "binding"

    binding_id: str
    merchant_id: str


@dataclass(frozen=True, kw_only=True)
class _OfNotification:
    """What every event about one notification says."""

    service: ClassVar[str] = "telegram"
    resource_type: ClassVar[str] = "notification"

    notification_id: str
    binding_id: str
    merchant_id: str


@dataclass(frozen=True, kw_only=True)
class BindingCreated(_OfBinding, Event):
    """A merchant is bound to a group."""

    chat_id: str
    title: str
    language: str


@dataclass(frozen=True, kw_only=True)
class BindingUpdated(_OfBinding, Event):
    """A binding's title, language, status or chat changed: by a person, or because Telegram said so."""

    changes: dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class BindingDeleted(_OfBinding, Event):
    """A merchant is no longer bound to a group."""

    chat_id: str


@dataclass(frozen=True, kw_only=True)
class NotificationRulesChanged(_OfBinding, Event):
    """A binding's rules changed; the fields of `changes` are `<type>.<field>`."""

    changes: dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class TestNotificationQueued(_OfNotification, Event):
    """Somebody asked for a message that shows whether a group can be reached."""

    __test__ = False  # pytest takes a class of this name for a test


@dataclass(frozen=True, kw_only=True)
class NotificationRetried(_OfNotification, Event):
    """Somebody put a notification back into the queue."""

    changes: dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class NotificationSent(_OfNotification, Event):
    """Telegram took a message."""

    notification_type: str
    message_id: int
    attempts: int


@dataclass(frozen=True, kw_only=True)
class NotificationFailed(_OfNotification, Event):
    """A message was given up; only a person tries it again."""

    notification_type: str
    error: str
    attempts: int
