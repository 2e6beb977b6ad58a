"""The catalogue of permissions, read off the routes themselves, and who holds one."""

from typing import Any

from flask import current_app

from gateway.blueprint import Blueprint
from gateway.openapi import operations_by_permission
from gateway.paging import Listing, listing
from gateway.schemas.system import PermissionCatalogueSchema
from gateway.schemas.users import HolderQuery, HolderSchema
from gateway.terms import needs, signed_in
from shared.permissions import LEVELS, MODULES

blueprint = Blueprint("permissions", __name__, description="What each permission opens.")


@blueprint.get("/permissions")
@signed_in
@blueprint.response(200, PermissionCatalogueSchema)
def list_permissions() -> dict[str, Any]:
    """List each module, each level, and the operations it opens."""
    operations = operations_by_permission(current_app.extensions["countinghouse-spec"])
    return {
        "items": [
            {
                "module": module,
                "levels": [
                    {"level": level, "operations": operations.get(f"{module}:{level}", [])} for level in LEVELS[1:]
                ],
            }
            for module in MODULES
        ]
    }


@blueprint.get("/permissions/holders")
@needs("users:read")
@blueprint.arguments(HolderQuery, location="query")
@blueprint.listing(HolderSchema)
def list_permission_holders(query: dict[str, Any]) -> Listing:
    """List the active users and API keys that hold a permission; users come first."""
    return listing("users", "list_permission_holders", **query)
