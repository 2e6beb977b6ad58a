"""BIN ranges: under which first digits cards are made."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.bins import BinChangeSchema, BinQuery, BinSchema, NewBinSchema
from gateway.terms import needs

blueprint = Blueprint("bins", __name__, description="BIN ranges, under which cards are made.")


@blueprint.get("/cards/bins")
@needs("cards:read")
@blueprint.arguments(BinQuery, location="query")
@blueprint.listing(BinSchema)
def list_bins(query: dict[str, Any]) -> Listing:
    """List BIN ranges, the latest first."""
    return listing("cards", "list_bins", **query)


@blueprint.post("/cards/bins")
@needs("cards:admin")
@blueprint.arguments(NewBinSchema)
@blueprint.response(201, BinSchema)
def create_bin(body: dict[str, Any]) -> Any:
    """Register a BIN range, for everybody or for one merchant."""
    return call("cards", "create_bin", **body)


@blueprint.patch("/cards/bins/<bin>")
@needs("cards:admin")
@blueprint.arguments(BinChangeSchema)
@blueprint.response(200, BinSchema)
def update_bin(body: dict[str, Any], bin: str) -> Any:
    """Change a BIN range: brand, length, merchant, or whether cards are made under it."""
    return call("cards", "update_bin", bin=bin, **body)
