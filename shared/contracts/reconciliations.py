"""What others may know of reconciliation: its runs, the daily checks, the figures of a month, the days that are closed.

A mismatch's kinds, in the order in which they are looked for; the first that fits is its kind:
`duplicate_upstream`, `missing_local`, `missing_local_update`, `status_mismatch`, `amount_mismatch`, `missing_upstream`.
"""

from dataclasses import dataclass
from typing import ClassVar, Final, TypedDict

from shared.errors import Conflict, InvalidRequest, NotFound
from shared.events import Event

MISMATCH_KINDS: Final = (
    "duplicate_upstream",
    "missing_local",
    "missing_local_update",
    "status_mismatch",
    "amount_mismatch",
    "missing_upstream",
)
EVENT_MISMATCHES_MAX: Final = 500
DAILY_CHECKS: Final = ("recharge_total", "consumption_total", "large_changes", "refunds_complete")


class ReconciliationView(TypedDict):
    """One run over a channel's day.

    `records` and `orders` are the day's; `matched` are records that agree; `expected` may still come right within its
    grace; `found` does not fit, whether it was found before or not; `healed` was open and has come right.
    """

    id: str
    channel: str
    date: str
    timezone: str
    records: int
    orders: int
    matched: int
    expected: int
    found: int
    healed: int
    previous_id: str | None
    actor_id: str
    actor_name: str
    started_at: str
    finished_at: str


class KindCountView(TypedDict):
    """How many mismatches of a kind a run saw, and how many of those are open now."""

    kind: str
    count: int
    open: int


class ReconciliationDetailView(ReconciliationView):
    """One run, with what it saw by kind."""

    kinds: list[KindCountView]


class ReconciliationPage(TypedDict):
    """One page of runs, newest first."""

    items: list[ReconciliationView]
    next_cursor: str | None


class ComparedMismatchView(TypedDict):
    """A mismatch that one or both of two runs saw. `change`: new, gone or still."""

    change: str
    mismatch_id: str
    kind: str
    status: str
    order_no: str | None
    upstream_ref: str | None
    merchant_id: str | None
    currency: str
    difference: str


class ComparisonView(TypedDict):
    """What a run saw and an earlier one did not (`new`), the other way round (`gone`), and what both saw (`still`)."""

    id: str
    with_id: str
    new: int
    gone: int
    still: int
    items: list[ComparedMismatchView]
    next_cursor: str | None


class DayRunsView(TypedDict):
    """What reconciling over all active channels came to; `busy` are channels where a run was on already.

    `items` may be of days before `date` too: of those where something was expected.
    """

    date: str
    items: list[ReconciliationView]
    busy: list[str]


class CheckView(TypedDict):
    """One daily check of one currency, and of one channel where that applies. `unit`: amount or count."""

    name: str
    currency: str
    channel: str | None
    unit: str
    expected: str
    actual: str
    difference: str
    tolerance: str
    ok: bool


class FiguresView(TypedDict):
    """What a period came to in one currency and channel. `balance_change` is of all entries, whatever they are.

    What went out is positive too: `withdrawal`, `consumption`, `fees` say how much.
    """

    currency: str
    channel: str | None
    recharge: str
    withdrawal: str
    consumption: str
    refund: str
    fees: str
    balance_change: str
    entries: int


class DailyView(TypedDict):
    """The four checks of a day, and its figures: of a closed day as it was sealed, with what came after apart.

    `is_archived`: entries of the day have left the log, so it has no checks any more.
    """

    date: str
    timezone: str
    closed_at: str | None
    is_archived: bool
    items: list[CheckView]
    figures: list[FiguresView]
    after_close: list[FiguresView]


class CheckRowView(TypedDict):
    """One row behind a daily check: an order, or of `large_changes` an entry."""

    order_no: str | None
    upstream_ref: str | None
    entry_id: str | None
    merchant_id: str | None
    channel: str | None
    currency: str
    expected: str
    actual: str
    difference: str


class CheckRowPage(TypedDict):
    """One page of the rows behind a check, by order number."""

    items: list[CheckRowView]
    next_cursor: str | None


class DayFiguresView(TypedDict):
    """One day of a month: its figures, and whether they are sealed."""

    date: str
    is_closed: bool
    items: list[FiguresView]


class MonthlyView(TypedDict):
    """The figures of a month: the sum of its days, sealed ones as they were sealed; what came after apart.

    `is_closed`: all of its days are.
    """

    month: str
    timezone: str
    is_closed: bool
    items: list[FiguresView]
    after_close: list[FiguresView]
    days: list[DayFiguresView]


class ClosedDayView(TypedDict):
    """A day whose books are closed. `digest` is of its totals and of the digest of the day before."""

    date: str
    timezone: str
    starts_at: str
    ends_at: str
    digest: str
    previous_digest: str | None
    reason: str
    actor_id: str
    actor_name: str
    closed_at: str


class ClosedDayPage(TypedDict):
    """One page of closed days, the last first."""

    items: list[ClosedDayView]
    next_cursor: str | None


class ReconciliationNotFound(NotFound):
    """There is no reconciliation with this id that you may see."""


class ReconciliationRunning(Conflict):
    """This day of this channel is being reconciled right now."""


class DayNotBegun(InvalidRequest):
    """This day has not begun yet."""


class DayNotOver(Conflict):
    """A day is closed when it is over, and whatever was under way in it has ended."""


class DayAlreadyClosed(Conflict):
    """This day is closed already."""


class DayOutOfOrder(Conflict):
    """Days are closed one after the other: the next one is the day after the last that is closed."""


class DayNotReady(Conflict):
    """Something of this day is open: mismatches, or channels not reconciled to the end. `force` closes it so."""


class DayArchived(Conflict):
    """Entries of this day have left the log for an archive: there are no rows behind its checks any more."""


@dataclass(frozen=True, kw_only=True)
class _OfRun:
    """What every event about one run says."""

    service: ClassVar[str] = "ledger"
    resource_type: ClassVar[str] = "reconciliation"

    reconciliation_id: str
    channel: str
    date: str


@dataclass(frozen=True, kw_only=True)
class ReconciliationFinished(_OfRun, Event):
    """A channel's day was reconciled."""

    records: int
    orders: int
    matched: int
    expected: int
    found: int
    healed: int


@dataclass(frozen=True, kw_only=True)
class MismatchesFound(_OfRun, Event):
    """A run opened more mismatches than are told one by one: how many of each kind."""

    count: int
    kinds: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class MismatchesHealed(_OfRun, Event):
    """More mismatches came right than are told one by one."""

    count: int


@dataclass(frozen=True, kw_only=True)
class _OfMismatch:
    """What every event about one mismatch of a run says."""

    service: ClassVar[str] = "ledger"
    resource_type: ClassVar[str] = "mismatch"

    mismatch_id: str
    reconciliation_id: str
    channel: str
    date: str
    kind: str
    order_no: str | None
    upstream_ref: str | None
    merchant_id: str | None
    currency: str
    difference: str


@dataclass(frozen=True, kw_only=True)
class MismatchFound(_OfMismatch, Event):
    """A mismatch is open: found for the first time, or again after it was closed."""


@dataclass(frozen=True, kw_only=True)
class MismatchHealed(_OfMismatch, Event):
    """A mismatch that was open has come right by itself."""


@dataclass(frozen=True, kw_only=True)
class DayClosed(Event):
    """A day's books are closed. `open_mismatches` and `channels_open`: what was open when it was closed by force."""

    service: ClassVar[str] = "ledger"
    resource_type: ClassVar[str] = "closed_day"

    date: str
    digest: str
    reason: str
    is_forced: bool
    open_mismatches: int
    channels_open: list[str]

    def resource_id(self) -> str:
        """Return the day."""
        return self.date
