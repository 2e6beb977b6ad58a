"""Balance types, and the changes that move money."""

from typing import Any

from flask import Response

from gateway.blueprint import Blueprint
from gateway.rpc import call
from gateway.schemas.ledger import (
    BalanceTypesSchema,
    BatchSchema,
    EntrySchema,
    NewBalanceChangeSchema,
    NewBatchSchema,
)
from gateway.terms import body_up_to, moves_money, needs, within

BATCH_MEGABYTES_MAX = 16
BATCH_SECONDS_MAX = 30

blueprint = Blueprint("balance_changes", __name__, description="Changes of balances, one or ten thousand at a time.")


@blueprint.get("/balance-types")
@needs("ledger:read")
@blueprint.response(200, BalanceTypesSchema)
def list_balance_types() -> Any:
    """List every balance type with its sign."""
    return {"items": call("ledger", "list_balance_types"), "next_cursor": None}


@blueprint.post("/balance-changes")
@needs("ledger:operate")
@moves_money
@blueprint.arguments(NewBalanceChangeSchema)
@blueprint.response(201, EntrySchema)
def post_balance_change(body: dict[str, Any]) -> Any:
    """Change a balance."""
    return call("ledger", "post_balance_change", **body)


@blueprint.post("/balance-changes/batch")
@needs("ledger:operate")
@moves_money
@body_up_to(megabytes=BATCH_MEGABYTES_MAX)
@within(seconds=BATCH_SECONDS_MAX)
@blueprint.arguments(NewBatchSchema)
@blueprint.response(200, BatchSchema)
def post_balance_changes(body: dict[str, Any]) -> Any:
    """Change up to ten thousand balances, all or none of them, or each for itself."""
    # The ledger writes this JSON itself: to read ten thousand entries and write them again took longer than HTTP.
    return Response(call("ledger", "post_balance_changes", **body), content_type="application/json")
