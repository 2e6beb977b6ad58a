"""Merchants of the platform."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.users import MerchantChangesSchema, MerchantQuery, MerchantSchema, NewMerchantSchema
from gateway.terms import needs

blueprint = Blueprint("merchants", __name__, description="Merchants of the platform.")


@blueprint.get("/merchants")
@needs("merchants:read")
@blueprint.arguments(MerchantQuery, location="query")
@blueprint.listing(MerchantSchema)
def list_merchants(query: dict[str, Any]) -> Listing:
    """List merchants, newest first."""
    return listing("users", "list_merchants", **query)


@blueprint.post("/merchants")
@needs("merchants:operate")
@blueprint.arguments(NewMerchantSchema)
@blueprint.response(201, MerchantSchema)
def create_merchant(body: dict[str, Any]) -> Any:
    """Add a merchant; takes somebody who sees all merchants."""
    return call("users", "create_merchant", **body)


@blueprint.get("/merchants/<merchant_id>")
@needs("merchants:read")
@blueprint.response(200, MerchantSchema)
def get_merchant(merchant_id: str) -> Any:
    """Show one merchant."""
    return call("users", "get_merchant", merchant_id=merchant_id)


@blueprint.patch("/merchants/<merchant_id>")
@needs("merchants:operate")
@blueprint.arguments(MerchantChangesSchema)
@blueprint.response(200, MerchantSchema)
def update_merchant(body: dict[str, Any], merchant_id: str) -> Any:
    """Change a merchant; what is not named stays."""
    return call("users", "update_merchant", merchant_id=merchant_id, changes=body)
