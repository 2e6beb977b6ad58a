"""What others may know of the ledger's explanations: why a balance, why a refusal, how a fee."""

from typing import Any, TypedDict

from shared.contracts.ledger import EntryView
from shared.errors import ErrorView, NotFound


class BalancePointView(TypedDict):
    """A balance at an instant: after the entry with this version, the first of which is 1; 0 is before any."""

    balance: str
    version: int


class ExplainedTotalView(TypedDict):
    """What the entries of one type changed."""

    type: int
    type_name: str
    group: str
    count: int
    increase: str
    decrease: str
    net: str


class HoldView(TypedDict):
    """A pending order, and what it holds."""

    order_no: str
    kind: str
    held: str


class BalanceProofView(TypedDict):
    """The proof of the explained entries: none lacks, each begins where the one before ended, none was changed."""

    ok: bool
    entries: int
    gaps: int
    broken: int
    changed: int
    sum_is_right: bool
    text: str


class BalanceExplanation(TypedDict):
    """Why an account has its balance: what it began with, what changed by type, and what it ended with.

    `opening_is_archived`: what came before has left the log for an archive, which ends with this balance. `held`,
    `available` and `holds` are of now, and null where the question is of another instant.
    """

    merchant_id: str
    user_id: str | None
    holder_type: str
    holder_id: str
    currency: str
    from_time: str | None
    at: str
    opening: BalancePointView
    opening_is_archived: bool
    changes: list[ExplainedTotalView]
    closing: BalancePointView
    held: str | None
    available: str | None
    holds: list[HoldView] | None
    proof: BalanceProofView


class CheckedRuleView(TypedDict):
    """A rule that a change has to meet, and whether it does."""

    rule: str
    ok: bool
    detail: str


class ChangeExplanation(TypedDict):
    """Whether a change would be posted, and which rule would refuse it. Rules after that one are not looked at."""

    is_allowed: bool
    rule: str | None
    refusal: ErrorView | None
    rules: list[CheckedRuleView]
    may_post: bool
    currency: str | None
    balance: str | None
    held: str | None
    available: str | None
    balance_after: str | None
    short_by: str | None
    holds: list[HoldView]


class RefusalExplanation(TypedDict):
    """A request that was refused: when, by which rule, and what stood in its way (`facts`)."""

    request_id: str
    refused_at: str
    rule: str
    refusal: ErrorView
    facts: dict[str, Any]


class FeeExplanation(TypedDict):
    """How the fee of an order came about: the amount it was made with, times percent, rounded; what charged it."""

    order_no: str
    merchant_id: str
    channel: str | None
    amount: str
    currency: str
    fee_percent: str
    fee_source: str | None
    exact: str
    rounding: str
    fee: str
    charged: str
    entries: list[EntryView]


class RefusalNotFound(NotFound):
    """No refusal of this request is kept that you may see: it takes an Idempotency-Key, and lasts seven days."""
