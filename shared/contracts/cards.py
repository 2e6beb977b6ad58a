"""What others may know of cards: its views, its errors, its events. The full number stands in none of the events."""

from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

from shared.errors import Conflict, InvalidRequest, NotFound
from shared.events import Event


class LimitsView(TypedDict):
    """What may be put onto a card: by one top-up, in a day, in a month. None is no limit."""

    max_amount: str | None
    daily_amount: str | None
    daily_count: int | None
    monthly_amount: str | None


class CardView(TypedDict):
    """A virtual card. Its number shows the first six and the last four digits only.

    `balance` is what the card's last transfer left; the ledger itself answers for `CardBalanceView`.
    """

    id: str
    number_masked: str
    last4: str
    bin: str
    brand: str
    holder_name: str
    currency: str
    expiry: str
    status: str
    status_reason: str | None
    merchant_id: str | None
    balance: str
    limits: LimitsView
    created_at: str
    updated_at: str


class CardPage(TypedDict):
    """One page of cards, newest first."""

    items: list[CardView]
    next_cursor: str | None


class AssignmentsView(TypedDict):
    """What a bulk assignment did: the cards, and how many of them changed hands."""

    items: list[CardView]
    changed: int


class AssignmentView(TypedDict):
    """The half-open interval during which a merchant held a card."""

    card_id: str
    merchant_id: str
    assigned_at: str
    unassigned_at: str | None


class AssignmentPage(TypedDict):
    """Who held a card, the present holder first."""

    items: list[AssignmentView]
    next_cursor: str | None


class TransferRefusalView(TypedDict):
    """Why a transfer was refused."""

    code: str
    detail: str


class TransferView(TypedDict):
    """Money that goes between a merchant's account and a card's: `direction` top_up or withdrawal.

    `state`: requested until the ledger has said what became of it, then posted or refused. `balance` is the card's
    right after a posted one.
    """

    transfer_id: str
    card_id: str
    merchant_id: str
    direction: str
    amount: str
    currency: str
    state: str
    balance: str | None
    refusal: TransferRefusalView | None
    requested_by: str
    created_at: str
    settled_at: str | None


class TransferPage(TypedDict):
    """One page of a card's transfers, newest first."""

    items: list[TransferView]
    next_cursor: str | None


class CardBalanceView(TypedDict):
    """A card's money as the ledger has it; `transfers_under_way` may change it yet."""

    card_id: str
    merchant_id: str | None
    currency: str
    balance: str
    held: str
    available: str
    version: int
    transfers_under_way: int
    updated_at: str | None


class RevealedCardView(TypedDict):
    """The one answer that holds a full card number."""

    id: str
    number: str
    expiry: str


class KeyUsageView(TypedDict):
    """Which keys of card numbers a process knows, and how many cards are under which."""

    current: str
    retired: list[str]
    cards: dict[str, int]


class ModuleDisabled(Conflict):
    """Cards are switched off: the parameter modules.cards.enabled is false."""


class CardNotFound(NotFound):
    """There is no such card."""


class InvalidCardNumber(InvalidRequest):
    """This is not a valid card number."""


class InvalidBin(InvalidRequest):
    """A BIN is six to eight digits."""


class InvalidExpiry(InvalidRequest):
    """An expiry is a month such as 2029-05 or 05/29."""


class MerchantRequired(InvalidRequest):
    """Whoever sees some merchants only makes cards for one of them."""


class NumberInAddress(InvalidRequest):
    """A full card number does not belong into an address: send it to POST /cards/search."""


class CardNumberTaken(Conflict):
    """There is a card with this number already."""


class BinExhausted(Conflict):
    """No free number was found under this BIN."""


class CardAlreadyActive(Conflict):
    """The card is active already."""


class CardAlreadyFrozen(Conflict):
    """The card is frozen already."""


class CardNotActive(Conflict):
    """The card is not active yet."""


class CardNotFrozen(Conflict):
    """The card is not frozen."""


class CardIsFrozen(Conflict):
    """The card is frozen; unfreeze it instead."""

    code = "card_frozen"


class CardIsClosed(Conflict):
    """The card is closed, and stays closed."""

    code = "card_closed"


class CardNotEmpty(Conflict):
    """The card holds money, or a transfer of it is under way."""


class CardWithoutMerchant(Conflict):
    """The card belongs to no merchant, so there is nobody whose money could go to it."""


@dataclass(frozen=True, kw_only=True)
class _OfCard:
    """What every event about one card says."""

    service: ClassVar[str] = "cards"
    resource_type: ClassVar[str] = "card"

    card_id: str
    merchant_id: str | None
    number_masked: str


@dataclass(frozen=True, kw_only=True)
class CardCreated(_OfCard, Event):
    """A card came into being, inactive."""

    brand: str
    currency: str


@dataclass(frozen=True, kw_only=True)
class CardUpdated(_OfCard, Event):
    """A card's holder name or expiry changed."""

    changes: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CardActivated(_OfCard, Event):
    """A card can be used from now on."""

    changes: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CardFrozen(_OfCard, Event):
    """A card cannot be used until it is unfrozen."""

    reason: str
    changes: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CardUnfrozen(_OfCard, Event):
    """A frozen card can be used again."""

    changes: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CardClosed(_OfCard, Event):
    """A card ended for good."""

    reason: str
    changes: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CardAssigned(_OfCard, Event):
    """A card went to a merchant, or back to none. `merchant_id` is whom it concerns: the new one, else the old."""

    changes: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CardRevealed(_OfCard, Event):
    """Somebody saw a card's full number."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class _OfTransfer(_OfCard):
    """What every event about one transfer of a card says."""

    transfer_id: str
    amount: str
    currency: str


@dataclass(frozen=True, kw_only=True)
class CardToppedUp(_OfTransfer, Event):
    """Money went from the merchant's account to the card's."""

    changes: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CardWithdrawn(_OfTransfer, Event):
    """Money went from the card's account back to the merchant's."""

    changes: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CardTransferRefused(_OfTransfer, Event):
    """The ledger refused a transfer, so that no money moved. `code` is that of the refusal."""

    direction: str
    code: str


@dataclass(frozen=True, kw_only=True)
class CardKeysChanged(Event):
    """Card numbers are sealed and indexed under other keys from now on; `retired` are those that are left behind."""

    service: ClassVar[str] = "cards"
    resource_type: ClassVar[str] = "key"

    key_id: str
    retired: list[str]
    reason: str
