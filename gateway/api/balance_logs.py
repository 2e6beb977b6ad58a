"""The balance log: every change of every balance, and its sums."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.ledger import EntrySchema, LogPageQuery, LogQuery, SummarySchema
from gateway.terms import needs

blueprint = Blueprint("balance_logs", __name__, description="The balance log.")


@blueprint.get("/balance-logs")
@needs("ledger:read")
@blueprint.arguments(LogPageQuery, location="query")
@blueprint.listing(EntrySchema)
def list_balance_logs(query: dict[str, Any]) -> Listing:
    """List the balance log, newest first; without a date that of today."""
    return listing("ledger", "list_balance_logs", **query)


@blueprint.get("/balance-logs/summary")
@needs("ledger:read")
@blueprint.arguments(LogQuery, location="query")
@blueprint.response(200, SummarySchema)
def summarize_balance_logs(query: dict[str, Any]) -> Any:
    """Sum up the balance log by type."""
    return call("ledger", "summarize_balance_logs", **query)
