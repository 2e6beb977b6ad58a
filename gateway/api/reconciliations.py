"""Reconciliation: a channel's day matched with what its platform says, and the runs compared."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.reconciliations import (
    ComparisonQuery,
    ComparisonSchema,
    NewReconciliationSchema,
    ReconciliationDetailSchema,
    ReconciliationQuery,
    ReconciliationSchema,
)
from gateway.terms import needs, within

RECONCILE_SECONDS_MAX = 120

blueprint = Blueprint("reconciliations", __name__, description="Our orders against the payment platforms' records.")


@blueprint.post("/reconciliations")
@needs("mismatches:operate")
@within(seconds=RECONCILE_SECONDS_MAX)
@blueprint.arguments(NewReconciliationSchema)
@blueprint.response(201, ReconciliationSchema)
def create_reconciliation(body: dict[str, Any]) -> Any:
    """Reconcile a channel's day; doing it again adds nothing that is there, and closes what has come right."""
    return call("ledger", "create_reconciliation", **body)


@blueprint.get("/reconciliations")
@needs("mismatches:read")
@blueprint.arguments(ReconciliationQuery, location="query")
@blueprint.listing(ReconciliationSchema)
def list_reconciliations(query: dict[str, Any]) -> Listing:
    """List runs, newest first; for who sees all merchants, since a run is over a whole channel."""
    return listing("ledger", "list_reconciliations", **query)


@blueprint.get("/reconciliations/<reconciliation_id>")
@needs("mismatches:read")
@blueprint.response(200, ReconciliationDetailSchema)
def get_reconciliation(reconciliation_id: str) -> Any:
    """Show a run with what it saw by kind."""
    return call("ledger", "get_reconciliation", reconciliation_id=reconciliation_id)


@blueprint.get("/reconciliations/<reconciliation_id>/compare")
@needs("mismatches:read")
@blueprint.arguments(ComparisonQuery, location="query")
@blueprint.response(200, ComparisonSchema)
def compare_reconciliations(query: dict[str, Any], reconciliation_id: str) -> Any:
    """Compare a run with another of the same channel and day: what is new, what is gone, what is still there."""
    return call("ledger", "compare_reconciliations", reconciliation_id=reconciliation_id, **query)
