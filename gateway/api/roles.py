"""Roles: for each module one level."""

from typing import Any

from gateway import authorization
from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.base import PageQuery
from gateway.schemas.users import NewRoleSchema, RoleChangesSchema, RoleSchema
from gateway.terms import needs

blueprint = Blueprint("roles", __name__, description="Roles, and what they open.")


@blueprint.get("/roles")
@needs("users:read")
@blueprint.arguments(PageQuery, location="query")
@blueprint.listing(RoleSchema)
def list_roles(query: dict[str, Any]) -> Listing:
    """List roles, newest first; the built-in ones come last."""
    return listing("users", "list_roles", **query)


@blueprint.post("/roles")
@needs("users:admin")
@blueprint.arguments(NewRoleSchema)
@blueprint.response(201, RoleSchema)
def create_role(body: dict[str, Any]) -> Any:
    """Add a role of permissions that one holds."""
    return call("users", "create_role", **body)


@blueprint.get("/roles/<name>")
@needs("users:read")
@blueprint.response(200, RoleSchema)
def get_role(name: str) -> Any:
    """Show one role."""
    return call("users", "get_role", name=name)


@blueprint.patch("/roles/<name>")
@needs("users:admin")
@blueprint.arguments(RoleChangesSchema)
@blueprint.response(200, RoleSchema)
def update_role(body: dict[str, Any], name: str) -> Any:
    """Change a role for everyone who has it; built-in roles stay as they are."""
    role = call("users", "update_role", name=name, changes=body)
    authorization.ask_again()
    return role


@blueprint.delete("/roles/<name>")
@needs("users:admin")
@blueprint.response(204)
def delete_role(name: str) -> None:
    """Delete a role that nobody has and that is not built in."""
    call("users", "delete_role", name=name)
