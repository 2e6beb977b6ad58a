"""What others may know of the ledger: views, errors, events.

Amounts are decimal strings with the currency beside them; a holder is a user, a merchant or a card.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NotRequired, TypedDict

from shared.errors import Conflict, ErrorView, InvalidRequest, NotFound, PayloadTooLarge, Unavailable
from shared.events import Event

if TYPE_CHECKING:
    from shared.contracts.mismatches import MismatchView
    from shared.contracts.statements import UpstreamRecordView

BATCH_CHANGES_MAX: Final = 10_000
EVENT_ENTRIES_MAX: Final = 500

HolderType = Literal["user", "merchant", "card"]


class BalanceTypeView(TypedDict):
    """One balance type. `sign`: positive, negative, zero, zero_or_negative, or either (but not zero).

    `order_no`: required, optional, or none.
    """

    code: int
    name: str
    group: str
    sign: str
    order_no: str
    is_admin: bool


class EntryView(TypedDict):
    """One row of the balance log; `balance` is the holder's balance right after it.

    `operator` names the member of staff who made it; what a program posted has none.
    An adjustment names whoever made it.
    """

    entry_id: str
    user_id: str | None
    holder_type: str
    holder_id: str
    merchant_id: str
    amount: str
    currency: str
    order_no: str | None
    balance: str
    version: int
    type: int
    type_name: str
    group: str
    time: str
    operator: str | None
    channel: str | None
    note: str | None
    reason: str | None


class ChangeResult(TypedDict):
    """What became of one change of a batch: its entry, or its error."""

    entry: NotRequired[EntryView]
    error: NotRequired[ErrorView]


class BatchView(TypedDict):
    """What became of a batch: `items` has one result a change, in the batch's order.

    It crosses the bus as JSON text, which the gateway passes on unread.
    """

    items: list[ChangeResult]
    posted: int
    refused: int


class EntryPage(TypedDict):
    """One page of the balance log, newest first.

    archived_before: entries of the range that are older than this have left for archives; null where none have.
    """

    items: list[EntryView]
    next_cursor: str | None
    archived_before: str | None


class TypeTotalView(TypedDict):
    """The total of one balance type in one currency. `net` = `increase` + `decrease`; `decrease` is not positive."""

    type: int
    type_name: str
    group: str
    currency: str
    count: int
    increase: str
    decrease: str
    net: str


class CurrencyTotalView(TypedDict):
    """The total of all types in one currency."""

    currency: str
    count: int
    increase: str
    decrease: str
    net: str


class SummaryView(TypedDict):
    """The totals of a filtered balance log.

    archived_before: entries older than this have left for archives, and these totals lack them; null where they do not.
    """

    items: list[TypeTotalView]
    totals: list[CurrencyTotalView]
    archived_before: str | None


class AccountView(TypedDict):
    """A holder's account in one currency; `available` is what is not held."""

    user_id: str | None
    holder_type: str
    holder_id: str
    merchant_id: str
    currency: str
    wallet: str
    balance: str
    held: str
    available: str
    version: int
    updated_at: str


class AccountPage(TypedDict):
    """One page of accounts, the last opened first."""

    items: list[AccountView]
    next_cursor: str | None


class SystemAccountView(TypedDict):
    """A system account's balance: the other leg of every entry against it."""

    name: str
    balance: str


class TrialBalanceView(TypedDict):
    """One currency's trial balance: `sum` of the holders' and the system's accounts is always "0"."""

    currency: str
    sum: str
    holders: str
    system: str
    system_accounts: list[SystemAccountView]


class TrialBalancePage(TypedDict):
    """The trial balance, a currency each, of the merchants that the caller sees."""

    items: list[TrialBalanceView]


class OrderView(TypedDict):
    """An order. `amount` is positive whichever way the money goes; `refunded` is what of it was given back."""

    order_no: str
    merchant_id: str
    user_id: str | None
    kind: str
    amount: str
    currency: str
    channel: str | None
    status: str
    upstream_ref: str | None
    fee: str
    refunded: str
    created_at: str
    settled_at: str | None


class OrderActView(TypedDict):
    """One thing that was done to an order: what, by whom, when and why."""

    act: str
    status_before: str | None
    status_after: str
    amount: str | None
    upstream_ref: str | None
    reason: str | None
    actor_id: str
    actor_name: str
    actor_type: str
    request_id: str
    time: str


class OrderDetailView(OrderView):
    """An order with its rows of the balance log (the newest two hundred) and its history, each newest first.

    `fee_source` says where its rate comes from: the `channel`, the `parameter`, or None where none was in force.
    """

    fee_percent: str
    fee_source: str | None
    entries: list[EntryView]
    history: list[OrderActView]
    upstream_records: "list[UpstreamRecordView]"
    mismatches: "list[MismatchView]"


class OrderPage(TypedDict):
    """One page of orders, newest first."""

    items: list[OrderView]
    next_cursor: str | None


class CardTransferOutcome(TypedDict):
    """What became of a transfer between a merchant and a card, once and for ever.

    `balance` and `version` are those of the card's account after it. `refusal` is the error as it crosses the bus.
    """

    transfer_id: str
    balance: str | None
    version: int | None
    refusal: dict[str, Any] | None


class LedgerFault(TypedDict):
    """Something that a proof of the ledger found. `entry_id` names the row where it shows, if one does."""

    kind: str
    detail: str
    account_id: int | None
    entry_id: str | None
    merchant_id: str | None


class VerificationView(TypedDict):
    """What a proof of the ledger says: how much it checked, and the faults that it found (the first hundred)."""

    ok: bool
    mode: str
    accounts: int
    entries: int
    faults: list[LedgerFault]
    fault_count: int
    verified_at: str


class UnknownBalanceType(InvalidRequest):
    """There is no balance type with this code."""


class BalanceTypeReserved(InvalidRequest):
    """The platform itself posts changes of this type; nobody does by hand."""


class CardTransferAltered(Conflict):
    """This transfer was asked for before, with another content."""


class WrongSign(InvalidRequest):
    """The amount has the wrong sign for this balance type."""


class OrderNumberRequired(InvalidRequest):
    """This balance type needs an order number."""


class OrderNumberNotAllowed(InvalidRequest):
    """This balance type takes no order number."""


class ReasonRequired(InvalidRequest):
    """This balance type needs a reason of 1 to 500 characters."""


class InsufficientBalance(Conflict):
    """The balance does not cover this change."""


class LimitExceeded(Conflict):
    """A limit does not allow this change; `limit` says which."""


class BalanceTooLarge(Conflict):
    """The balance would become larger than the ledger can hold."""


class LedgerBusy(Unavailable):
    """The ledger is posting as many batches as it can; nothing of this one was posted."""


class OrderNotFound(NotFound):
    """There is no order with this number that you may see."""


class OrderNumberTaken(Conflict):
    """This order number cannot be used: choose another, or leave it out and one is made."""


class OrderNotPending(Conflict):
    """This order is not pending any more."""


class OrderNotSettled(Conflict):
    """Only what was paid is refunded, and this order is not settled."""


class OrderSettledOtherwise(Conflict):
    """This order is settled with another reference of the payment platform."""


class OrderNotRefundable(Conflict):
    """Orders of this kind have no refund: what a platform paid in or out goes back by an order of its own."""


class RefundTooLarge(Conflict):
    """All refunds of an order together are never more than was paid."""


class RefundedThroughOrder(Conflict):
    """This number is that of an order, which is refunded by its own act, so that the refunds are counted."""


class SettledThroughOrder(Conflict):
    """This number is that of an order, which is settled by its own act, so that its money moves once."""


class OrderPostedBefore(Conflict):
    """A balance change with this order's number has moved its money; settling it would move it twice."""


class TooManyChanges(PayloadTooLarge):
    """A batch has at most 10 000 changes."""


ADMIN_TYPES: Final = (326, 335, 341, 342)  # what a person adjusts: needs `ledger:admin`, whatever the route asks for


@dataclass(frozen=True, kw_only=True)
class BalancesChanged(Event):
    """Entries were posted, at most `EVENT_ENTRIES_MAX` in one event. `entries` are the views of `EntryView`.

    `merchant_id` is that of all entries, or None where they belong to several.
    """

    service: ClassVar[str] = "ledger"
    resource_type: ClassVar[str] = "entry"

    entries: list[EntryView]
    merchant_id: str | None = None

    def resource_id(self) -> str:
        """Return the first entry's id."""
        return self.entries[0]["entry_id"]


@dataclass(frozen=True, kw_only=True)
class LargeChangeDetected(Event):
    """An entry reached the parameter `ledger.large_change_threshold`, in absolute value."""

    service: ClassVar[str] = "ledger"
    resource_type: ClassVar[str] = "entry"

    entry_id: str
    merchant_id: str
    holder_type: str
    holder_id: str
    user_id: str | None
    type: int
    type_name: str
    group: str
    amount: str
    currency: str
    balance: str
    order_no: str | None
    operator: str | None
    threshold: str
    time: str
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class LedgerVerified(Event):
    """The ledger was proved, or not: `faults` are the first of `fault_count`."""

    service: ClassVar[str] = "ledger"
    resource_type: ClassVar[str] = "ledger"

    ok: bool
    mode: str
    accounts: int
    entries: int
    fault_count: int
    faults: list[LedgerFault]

    def resource_id(self) -> str:
        """Return how it was proved."""
        return self.mode


@dataclass(frozen=True, kw_only=True)
class _OfOrder:
    """What every event about one order says."""

    service: ClassVar[str] = "ledger"
    resource_type: ClassVar[str] = "order"

    order_no: str
    merchant_id: str
    user_id: str | None
    kind: str
    amount: str
    currency: str
    channel: str | None

    def resource_id(self) -> str:
        """Return the order's number."""
        return self.order_no


@dataclass(frozen=True, kw_only=True)
class OrderCreated(_OfOrder, Event):
    """An order was made, and holds its money if it is a purchase, a renewal or a withdrawal."""

    fee: str = "0"


@dataclass(frozen=True, kw_only=True)
class OrderSettled(_OfOrder, Event):
    """An order was settled: its money has moved."""

    fee: str
    upstream_ref: str | None
    changes: dict[str, dict[str, str | None]]


@dataclass(frozen=True, kw_only=True)
class OrderFailed(_OfOrder, Event):
    """An order failed: no money moved, and what it held is free."""

    reason: str | None
    changes: dict[str, dict[str, str | None]]


@dataclass(frozen=True, kw_only=True)
class OrderRefunded(_OfOrder, Event):
    """An amount of an order was given back; `refunded` is all that was until now."""

    refunded: str
    reason: str
    changes: dict[str, dict[str, str | None]]
