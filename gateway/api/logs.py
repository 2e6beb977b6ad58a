"""The log: search, one row, counts, and the proof that nobody touched it. Reading it is logged, as every call is."""

from functools import partial
from typing import Any

from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.logs import (
    ChainQuery,
    ChainReportSchema,
    LogDetailSchema,
    LogQuery,
    LogSchema,
    LogStatsQuery,
    LogStatsSchema,
)
from gateway.terms import needs, within
from shared.contracts.audit import verify_in_calls

VERIFY_CALLS_MAX = 20  # a million rows; whoever has more goes on at `next_seq`
VERIFY_SECONDS_MAX = 60

blueprint = Blueprint("logs", __name__, description="What was done, called, broken and changed.")


@blueprint.get("/logs")
@needs("logs:read")
@blueprint.arguments(LogQuery, location="query")
@blueprint.listing(LogSchema)
def list_logs(query: dict[str, Any]) -> Listing:
    """Search the log, newest first: your merchants' rows, and your own that are no merchant's."""
    return listing("audit", "list_logs", **query)


@blueprint.get("/logs/<log_id>")
@needs("logs:read")
@blueprint.response(200, LogDetailSchema)
def get_log(log_id: str) -> Any:
    """Show one row, whole, with its place in the chain."""
    return call("audit", "get_log", log_id=log_id)


@blueprint.get("/logs/stats")
@needs("logs:read")
@blueprint.arguments(LogStatsQuery, location="query")
@blueprint.response(200, LogStatsSchema)
def log_stats(query: dict[str, Any]) -> Any:
    """Count rows by action, user, outcome or hour."""
    return call("audit", "log_stats", **query)


@blueprint.get("/logs/verify")
@needs("logs:read")
@within(seconds=VERIFY_SECONDS_MAX)
@blueprint.arguments(ChainQuery, location="query")
@blueprint.response(200, ChainReportSchema)
def verify_chain(query: dict[str, Any]) -> Any:
    """Check the hash chain: what was changed, removed, inserted or cut off is found."""
    return verify_in_calls(partial(call, "audit", "verify_chain"), calls_max=VERIFY_CALLS_MAX, **query)
