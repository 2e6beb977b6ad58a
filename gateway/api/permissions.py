"""The catalogue of permissions, read off the routes themselves."""

from typing import Any

from flask import current_app

from gateway.blueprint import Blueprint
from gateway.openapi import operations_by_permission
from gateway.schemas.system import PermissionCatalogueSchema
from gateway.terms import signed_in
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
