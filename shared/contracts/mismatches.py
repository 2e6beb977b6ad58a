"""What others may know of mismatches and their corrections: views, errors, events.

How mismatches are found and heal stands in `shared.contracts.reconciliations`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Final, NotRequired, TypedDict

from shared.errors import Conflict, ErrorView, InvalidRequest, NotFound, PermissionDenied
from shared.events import Event

BULK_MISMATCHES_MAX: Final = 500


class DifferingFieldView(TypedDict):
    """A field on which both sides disagree, and what each says; None where a side has no such thing."""

    field: str
    local: str | None
    upstream: str | None


class MismatchView(TypedDict):
    """An order of ours and a record of the payment platform that do not fit, or one of them without the other.

    `difference` is what the platform says was paid in the end, less what we say. `resolution` says how it was closed.
    """

    id: str
    kind: str
    status: str
    resolution: str | None
    channel: str
    date: str
    merchant_id: str | None
    order_no: str | None
    upstream_ref: str | None
    currency: str
    difference: str
    differing: list[DifferingFieldView]
    version: int
    opened_at: str
    updated_at: str


class MismatchPage(TypedDict):
    """One page of mismatches, the last opened first."""

    items: list[MismatchView]
    next_cursor: str | None


class MismatchActView(TypedDict):
    """One thing that was done to a mismatch: what, by whom, when and why."""

    act: str
    status_before: str | None
    status_after: str
    reason: str | None
    correction_id: str | None
    actor_id: str
    actor_name: str
    actor_type: str
    request_id: str
    time: str


class ChangedFieldView(TypedDict):
    """A field of an order or a record that a correction changes."""

    field: str
    before: str | None
    after: str | None


class CorrectionEntryView(TypedDict):
    """An entry that a correction posts. `bucket` and `date` say which line of which day's report it counts for.

    `balance` is the holder's balance after it. `entry_id` is None until it is posted.
    """

    entry_id: str | None
    merchant_id: str
    user_id: str | None
    type: int
    type_name: str
    amount: str
    currency: str
    balance: NotRequired[str | None]
    bucket: str | None
    date: str | None


class CorrectionContentView(TypedDict):
    """What a correction changes: an order's fields, the payment platform's records, and the entries that it posts.

    `new_record` is the record that a correction adds to stand for what we say.
    """

    order_no: str | None
    is_new_order: bool
    order: list[ChangedFieldView]
    records: list[dict[str, Any]]
    new_record: dict[str, Any] | None
    entries: list[CorrectionEntryView]


class CorrectionView(CorrectionContentView):
    """A correction of a mismatch: proposed, rejected, void, applied or reversed. `reversal_of` names what it reverses.

    `content_sha256` pins what it changes: an approval of anything else is refused.
    """

    id: str
    mismatch_id: str
    merchant_id: str | None
    to: str
    status: str
    reason: str
    reversal_of: str | None
    content_sha256: str
    proposed_by: str
    proposed_by_name: str
    decided_by: str | None
    decided_by_name: str | None
    decided_reason: str | None
    created_at: str
    decided_at: str | None
    applied_at: str | None


class CorrectionPreview(CorrectionContentView):
    """What a correction would change, and do not change yet. `refusal` says why it would be refused right now."""

    content_sha256: str
    needs_approval: bool
    refusal: ErrorView | None


class CorrectionPage(TypedDict):
    """One page of corrections, newest first."""

    items: list[CorrectionView]
    next_cursor: str | None


class MismatchDetailView(MismatchView):
    """A mismatch with both sides as they were found, its history and its corrections, each newest first."""

    local: dict[str, str | None] | None
    upstream: dict[str, str | None] | None
    history: list[MismatchActView]
    corrections: list[CorrectionView]


class MismatchGroupView(TypedDict):
    """Mismatches that are alike: of one channel, kind, differing fields and difference."""

    channel: str
    kind: str
    differing: list[str]
    currency: str
    difference: str
    count: int
    sum: str
    first_opened_at: str
    last_opened_at: str


class MismatchGroupPage(TypedDict):
    """One page of groups, the largest first."""

    items: list[MismatchGroupView]
    next_cursor: str | None


class BulkResultView(TypedDict):
    """What became of one mismatch of a bulk act: its status now, or its error."""

    id: str
    status: NotRequired[str]
    error: NotRequired[ErrorView]


class BulkView(TypedDict):
    """What became of a bulk act: one result an id, in the order of the ids."""

    items: list[BulkResultView]
    done: int
    refused: int


class MismatchNotFound(NotFound):
    """There is no mismatch with this id that you may see."""


class CorrectionNotFound(NotFound):
    """There is no correction with this id that you may see."""


class MismatchNotOpen(Conflict):
    """This mismatch is closed; it can be reopened."""


class MismatchIsOpen(Conflict):
    """This mismatch is open: there is nothing to take back."""


class ProposalPending(Conflict):
    """A proposal waits for its approval; it is approved, rejected, replaced, or taken back by reopening."""


class NoProposal(Conflict):
    """There is no proposal to decide on."""


class CorrectionStands(Conflict):
    """This mismatch was corrected: the correction can be reversed."""


class NotCorrectable(Conflict):
    """This mismatch cannot be corrected this way."""


class MismatchOutdated(Conflict):
    """Both sides are not any more as they were when this mismatch was found: reconcile the day again."""


class ProposalChanged(Conflict):
    """The proposal is another than the one that you approve."""


class ProposalOutdated(Conflict):
    """The order or the record has changed since this was proposed: it needs a new proposal."""


class CorrectionNotApplied(Conflict):
    """Only a correction that is applied, and is no reversal itself, can be reversed."""


class FourEyes(PermissionDenied):
    """This needs a second person."""


class OrderTermsRequired(InvalidRequest):
    """To make the missing order, its `merchant_id` and its `kind` are needed."""


@dataclass(frozen=True, kw_only=True)
class _OfMismatch:
    """What every event about an act on one mismatch says."""

    service: ClassVar[str] = "ledger"
    resource_type: ClassVar[str] = "mismatch"

    mismatch_id: str
    kind: str
    channel: str
    order_no: str | None
    upstream_ref: str | None
    merchant_id: str | None
    reason: str
    changes: dict[str, dict[str, str | None]]


@dataclass(frozen=True, kw_only=True)
class MismatchReconciled(_OfMismatch, Event):
    """A person stated that both sides agree, or why they may differ. No money moved."""


@dataclass(frozen=True, kw_only=True)
class MismatchIgnored(_OfMismatch, Event):
    """A person stated that this mismatch is to be left alone."""


@dataclass(frozen=True, kw_only=True)
class MismatchReopened(_OfMismatch, Event):
    """A mismatch that was closed is open again, or its proposal was taken back."""


@dataclass(frozen=True, kw_only=True)
class _OfCorrection:
    """What every event about one correction says. `changes` are those of the order."""

    service: ClassVar[str] = "ledger"
    resource_type: ClassVar[str] = "correction"

    correction_id: str
    mismatch_id: str
    kind: str
    to: str
    order_no: str | None
    merchant_id: str | None
    content_sha256: str
    reason: str
    reversal_of: str | None
    changes: dict[str, dict[str, str | None]]


@dataclass(frozen=True, kw_only=True)
class CorrectionProposed(_OfCorrection, Event):
    """A correction waits for a second person. Nothing has changed yet."""


@dataclass(frozen=True, kw_only=True)
class CorrectionApproved(_OfCorrection, Event):
    """A second person approved a correction, which is thereby applied."""


@dataclass(frozen=True, kw_only=True)
class CorrectionRejected(_OfCorrection, Event):
    """A second person rejected a correction."""


@dataclass(frozen=True, kw_only=True)
class CorrectionApplied(_OfCorrection, Event):
    """A correction took effect: the order, the records and the entries are as it says."""


@dataclass(frozen=True, kw_only=True)
class CorrectionReversed(_OfCorrection, Event):
    """A correction was taken back by another one, `reversal_of` names it: the mismatch is open again."""
