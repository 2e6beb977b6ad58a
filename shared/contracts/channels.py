"""What others may know of channels, the payment platforms that orders are paid through: views, errors, events.

A channel's `code` is what stands in `orders.channel` and `entries.channel`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypedDict

from shared.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from shared.events import Event

CHANNEL_KINDS: Final = ("statement", "http", "stripe")
CHANNEL_STATUSES: Final = ("active", "disabled")
CALLBACK_BYTES_MAX: Final = 65_536
CALLBACK_OUTCOMES: Final = (
    "settled", "failed", "already", "noted", "unknown_order", "mismatched", "contradicted", "not_confirmed",
    "not_covered", "ignored",
)  # fmt: skip


class ChannelView(TypedDict):
    """A channel. `credentials` names the secrets that it has; what they are is never shown again."""

    code: str
    name: str
    kind: str
    config: dict[str, Any]
    credentials: list[str]
    status: str
    version: int
    created_at: str
    updated_at: str


class ChannelPage(TypedDict):
    """One page of channels, newest first."""

    items: list[ChannelView]
    next_cursor: str | None


class CallbackView(TypedDict):
    """What a callback came to, in one word of `CALLBACK_OUTCOMES`; delivered again, the same.

    One that is `ignored` names no order and no payment.
    """

    outcome: str
    order_no: str | None
    upstream_ref: str | None


class UpstreamAnswerView(TypedDict):
    """What a platform answered when it was asked about an order: raw, its first 16 384 characters.

    `asked_for` is callback or sync; `fault` says why the answer was none that counts.
    """

    channel: str
    asked_for: str
    status_code: int | None
    body: str
    fault: str | None
    request_id: str
    time: str


class UpstreamAnswerPage(TypedDict):
    """One page of answers, newest first."""

    items: list[UpstreamAnswerView]
    next_cursor: str | None


class OrderSyncView(TypedDict):
    """What asking for pending orders came to: how many were asked for, and how often each outcome followed.

    `unanswered` counts the questions without a proper answer; a channel that leaves several in a row without one is
    asked no more this time, and named in `unreachable`. `next_cursor` is None when all were asked for.
    """

    asked: int
    outcomes: dict[str, int]
    unanswered: int
    unreachable: list[str]
    next_cursor: str | None


class ChannelKeyUsageView(TypedDict):
    """The keys of channels' secrets that an instance knows, and how many channels are under which."""

    current: str
    retired: list[str]
    channels: dict[str, int]


class ChannelNotFound(NotFound):
    """There is no channel with this code."""


class ChannelCodeTaken(Conflict):
    """There is a channel with this code already."""


class InvalidChannelConfig(InvalidRequest):
    """A channel of this kind cannot be configured so."""


class ChannelsAreForAll(PermissionDenied):
    """A channel serves all merchants, so who changes one must see all merchants."""


class CallbackRefused(Unauthenticated):
    """This is not a callback of an active channel that signs its callbacks."""


class CallbackTooLarge(PayloadTooLarge):
    """A callback has at most 65 536 bytes."""


class ChannelUnreachable(Unavailable):
    """The payment platform does not answer, so nothing was done: deliver again."""


@dataclass(frozen=True, kw_only=True)
class _OfChannel:
    """What every event about one channel says."""

    service: ClassVar[str] = "ledger"
    resource_type: ClassVar[str] = "channel"

    code: str

    def resource_id(self) -> str:
        """Return the channel's code."""
        return self.code


@dataclass(frozen=True, kw_only=True)
class ChannelCreated(_OfChannel, Event):
    """A channel was registered. `credentials` names its secrets, which no event holds."""

    name: str
    kind: str
    config: dict[str, Any]
    credentials: list[str]
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class ChannelUpdated(_OfChannel, Event):
    """A channel was changed: a field of its configuration as `config.<field>`, a secret as `credentials.<field>`."""

    version: int
    changes: dict[str, dict[str, Any]]
    reason: str


@dataclass(frozen=True, kw_only=True)
class UpstreamReported(_OfChannel, Event):
    """A platform told of a payment: by a callback, or when it was asked (`source`). `outcome` says what followed.

    `differing` names the fields in which it is not what the order asked for, which moves no money.
    """

    source: str
    outcome: str
    order_no: str
    merchant_id: str | None
    upstream: dict[str, Any]
    differing: list[str]
    webhook_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class UpstreamMessagesForgotten(Event):
    """Callbacks or raw answers (`kind`) from before a time are gone, since `ledger.callback_retention` has passed."""

    service: ClassVar[str] = "ledger"
    resource_type: ClassVar[str] = "upstream_messages"

    kind: str
    count: int
    before: str

    def resource_id(self) -> str:
        """Return which of them."""
        return self.kind


@dataclass(frozen=True, kw_only=True)
class ChannelKeysChanged(Event):
    """Channels' secrets are sealed under another key from now on; `retired` are those that are left behind."""

    service: ClassVar[str] = "ledger"
    resource_type: ClassVar[str] = "key"

    key_id: str
    retired: list[str]
    reason: str
