"""Every state of a mismatch, and what each act does there."""

import itertools

import pytest

from services.ledger.domain.mismatches import Status, Verb, state_after
from shared.contracts.mismatches import (
    CorrectionStands,
    MismatchIsOpen,
    MismatchNotOpen,
    NoProposal,
    ProposalPending,
)
from shared.errors import Conflict

TABLE: dict[str, dict[str, str | type[Conflict]]] = {
    "open": {
        "reconcile": "reconciled",
        "ignore": "ignored",
        "reopen": MismatchIsOpen,
        "correct": "corrected",
        "propose": "pending_approval",
        "approve": NoProposal,
        "reject": NoProposal,
        "reverse": "open",
    },
    "pending_approval": {
        "reconcile": ProposalPending,
        "ignore": ProposalPending,
        "reopen": "open",
        "correct": "corrected",
        "propose": "pending_approval",
        "approve": "corrected",
        "reject": "open",
        "reverse": ProposalPending,
    },
    "reconciled": {
        "reconcile": MismatchNotOpen,
        "ignore": MismatchNotOpen,
        "reopen": "open",
        "correct": MismatchNotOpen,
        "propose": MismatchNotOpen,
        "approve": NoProposal,
        "reject": NoProposal,
        "reverse": MismatchNotOpen,
    },
    "corrected": {
        "reconcile": MismatchNotOpen,
        "ignore": MismatchNotOpen,
        "reopen": CorrectionStands,
        "correct": CorrectionStands,
        "propose": CorrectionStands,
        "approve": "open",
        "reject": "corrected",
        "reverse": "open",
    },
    "ignored": {
        "reconcile": MismatchNotOpen,
        "ignore": MismatchNotOpen,
        "reopen": "open",
        "correct": MismatchNotOpen,
        "propose": MismatchNotOpen,
        "approve": NoProposal,
        "reject": NoProposal,
        "reverse": MismatchNotOpen,
    },
}
CASES = [(status, verb, after) for status, row in TABLE.items() for verb, after in row.items()]


@pytest.mark.parametrize(("status", "verb", "after"), CASES)
def test_an_act_leads_to_its_state_or_is_refused(status: str, verb: str, after: str | type[Conflict]) -> None:
    if isinstance(after, str):
        assert state_after(status, Verb(verb)) == after
        return
    with pytest.raises(after):
        state_after(status, Verb(verb))


def test_the_table_knows_every_state_and_every_verb() -> None:
    assert {(status, verb) for status, verb, _ in CASES} == set(itertools.product(Status, Verb))
