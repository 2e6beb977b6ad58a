"""Explanations: why a balance, which rule refuses a change, how a fee."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.rpc import call
from gateway.schemas.explanations import (
    BalanceExplanationQuery,
    BalanceExplanationSchema,
    ChangeExplanationSchema,
    FeeExplanationSchema,
    FeeQuery,
    RefusalExplanationSchema,
    RefusalQuery,
)
from gateway.schemas.ledger import NewBalanceChangeSchema
from gateway.terms import needs, within

PROOF_SECONDS = 30

blueprint = Blueprint("explanations", __name__, description="Why a balance, why a refusal, how a fee.")


@blueprint.get("/explain/balance")
@needs("ledger:read")
@within(seconds=PROOF_SECONDS)
@blueprint.arguments(BalanceExplanationQuery, location="query")
@blueprint.response(200, BalanceExplanationSchema)
def explain_balance(query: dict[str, Any]) -> Any:
    """Explain a balance: opening, changes by type, closing, and the proof of the entries between."""
    return call("ledger", "explain_balance", **query)


@blueprint.post("/explain/change")
@needs("ledger:read")
@blueprint.arguments(NewBalanceChangeSchema)
@blueprint.response(200, ChangeExplanationSchema)
def explain_change(body: dict[str, Any]) -> Any:
    """Say whether a change would be posted, and if not, which rule would refuse it; nothing is written."""
    return call("ledger", "explain_change", **body)


@blueprint.get("/explain/refusal")
@needs("ledger:read")
@blueprint.arguments(RefusalQuery, location="query")
@blueprint.response(200, RefusalExplanationSchema)
def explain_refusal(query: dict[str, Any]) -> Any:
    """Explain why a request with an Idempotency-Key was refused, for seven days."""
    return call("ledger", "explain_refusal", **query)


@blueprint.get("/explain/fee")
@needs("orders:read")
@blueprint.arguments(FeeQuery, location="query")
@blueprint.response(200, FeeExplanationSchema)
def explain_fee(query: dict[str, Any]) -> Any:
    """Explain the fee of an order: its rate, where that came from, and how it was rounded."""
    return call("ledger", "explain_fee", **query)
