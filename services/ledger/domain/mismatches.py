"""What a mismatch is, and which of its states each act leads to."""

from enum import StrEnum
from typing import Final

from shared.contracts.mismatches import (
    CorrectionStands,
    MismatchIsOpen,
    MismatchNotOpen,
    NoProposal,
    ProposalPending,
)
from shared.errors import Conflict


class Kind(StrEnum):
    """What does not fit."""

    MISSING_LOCAL_UPDATE = "missing_local_update"
    AMOUNT_MISMATCH = "amount_mismatch"
    STATUS_MISMATCH = "status_mismatch"
    MISSING_UPSTREAM = "missing_upstream"
    MISSING_LOCAL = "missing_local"
    DUPLICATE_UPSTREAM = "duplicate_upstream"


class Status(StrEnum):
    """How far a mismatch has come."""

    OPEN = "open"
    PENDING_APPROVAL = "pending_approval"
    RECONCILED = "reconciled"
    CORRECTED = "corrected"
    IGNORED = "ignored"


class Verb(StrEnum):
    """What a person can do to a mismatch. CORRECT applies a correction at once, PROPOSE has it wait."""

    RECONCILE = "reconcile"
    IGNORE = "ignore"
    REOPEN = "reopen"
    CORRECT = "correct"
    PROPOSE = "propose"
    APPROVE = "approve"
    REJECT = "reject"
    REVERSE = "reverse"


_S, _V = Status, Verb

# The state that a verb leads to, or why it is refused. A corrected mismatch may have a proposal too: to reverse the
# correction. Until that is approved the correction stands, and so does the state. An open one may have a correction
# that stands: reconciliation opens it again when either side has changed since.
_STATES: Final[dict[tuple[Status, Verb], Status | type[Conflict]]] = {
    (_S.OPEN, _V.RECONCILE): _S.RECONCILED,
    (_S.OPEN, _V.IGNORE): _S.IGNORED,
    (_S.OPEN, _V.REOPEN): MismatchIsOpen,
    (_S.OPEN, _V.CORRECT): _S.CORRECTED,
    (_S.OPEN, _V.PROPOSE): _S.PENDING_APPROVAL,
    (_S.OPEN, _V.APPROVE): NoProposal,
    (_S.OPEN, _V.REJECT): NoProposal,
    (_S.OPEN, _V.REVERSE): _S.OPEN,
    (_S.PENDING_APPROVAL, _V.RECONCILE): ProposalPending,
    (_S.PENDING_APPROVAL, _V.IGNORE): ProposalPending,
    (_S.PENDING_APPROVAL, _V.REOPEN): _S.OPEN,
    (_S.PENDING_APPROVAL, _V.CORRECT): _S.CORRECTED,
    (_S.PENDING_APPROVAL, _V.PROPOSE): _S.PENDING_APPROVAL,
    (_S.PENDING_APPROVAL, _V.APPROVE): _S.CORRECTED,
    (_S.PENDING_APPROVAL, _V.REJECT): _S.OPEN,
    (_S.PENDING_APPROVAL, _V.REVERSE): ProposalPending,
    (_S.RECONCILED, _V.RECONCILE): MismatchNotOpen,
    (_S.RECONCILED, _V.IGNORE): MismatchNotOpen,
    (_S.RECONCILED, _V.REOPEN): _S.OPEN,
    (_S.RECONCILED, _V.CORRECT): MismatchNotOpen,
    (_S.RECONCILED, _V.PROPOSE): MismatchNotOpen,
    (_S.RECONCILED, _V.APPROVE): NoProposal,
    (_S.RECONCILED, _V.REJECT): NoProposal,
    (_S.RECONCILED, _V.REVERSE): MismatchNotOpen,
    (_S.CORRECTED, _V.RECONCILE): MismatchNotOpen,
    (_S.CORRECTED, _V.IGNORE): MismatchNotOpen,
    (_S.CORRECTED, _V.REOPEN): CorrectionStands,
    (_S.CORRECTED, _V.CORRECT): CorrectionStands,
    (_S.CORRECTED, _V.PROPOSE): CorrectionStands,
    (_S.CORRECTED, _V.APPROVE): _S.OPEN,
    (_S.CORRECTED, _V.REJECT): _S.CORRECTED,
    (_S.CORRECTED, _V.REVERSE): _S.OPEN,
    (_S.IGNORED, _V.RECONCILE): MismatchNotOpen,
    (_S.IGNORED, _V.IGNORE): MismatchNotOpen,
    (_S.IGNORED, _V.REOPEN): _S.OPEN,
    (_S.IGNORED, _V.CORRECT): MismatchNotOpen,
    (_S.IGNORED, _V.PROPOSE): MismatchNotOpen,
    (_S.IGNORED, _V.APPROVE): NoProposal,
    (_S.IGNORED, _V.REJECT): NoProposal,
    (_S.IGNORED, _V.REVERSE): MismatchNotOpen,
}

# How a mismatch was closed by whoever closed it; healing is what reconciliation does.
RESOLUTIONS: Final = {_S.RECONCILED: "agreed", _S.IGNORED: "ignored", _S.CORRECTED: "corrected"}


def state_after(status: str, verb: Verb) -> Status:
    """Return the state that a verb leads to.

    Raises: MismatchNotOpen, MismatchIsOpen, ProposalPending, NoProposal, CorrectionStands.
    """
    after = _STATES[Status(status), verb]
    if isinstance(after, Status):
        return after
    raise after(status=str(status))
