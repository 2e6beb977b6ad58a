"""Settings: parameters, their versions, and what a change would reach."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.settings import (
    ParameterChangeSchema,
    ParameterPreviewSchema,
    ParameterQuery,
    ParameterSchema,
    ParameterValueSchema,
    ParameterVersionSchema,
    RollBackSchema,
)
from gateway.terms import needs

blueprint = Blueprint("settings", __name__, description="What can be changed while the system runs.")


@blueprint.get("/settings/parameters")
@needs("settings:read")
@blueprint.arguments(ParameterQuery, location="query")
@blueprint.listing(ParameterSchema)
def list_parameters(query: dict[str, Any]) -> Listing:
    """List the parameters with their values in force, by key."""
    return listing("settings", "list_parameters", **query)


@blueprint.get("/settings/parameters/<key>")
@needs("settings:read")
@blueprint.response(200, ParameterSchema)
def get_parameter(key: str) -> Any:
    """Show one parameter."""
    return call("settings", "get_parameter", key=key)


@blueprint.put("/settings/parameters/<key>")
@needs("settings:admin")
@blueprint.arguments(ParameterChangeSchema)
@blueprint.response(200, ParameterSchema)
def change_parameter(body: dict[str, Any], key: str) -> Any:
    """Put a new value in force, unless somebody was quicker: 409 `stale_version`."""
    return call("settings", "change_parameter", key=key, **body)


@blueprint.post("/settings/parameters/<key>/preview")
@needs("settings:read")
@blueprint.arguments(ParameterValueSchema)
@blueprint.response(200, ParameterPreviewSchema)
def preview_parameter(body: dict[str, Any], key: str) -> Any:
    """Say what a value would do, without setting it."""
    return call("settings", "preview_parameter", key=key, **body)


@blueprint.get("/settings/parameters/<key>/history")
@needs("settings:read")
@blueprint.arguments(ParameterQuery, location="query")
@blueprint.listing(ParameterVersionSchema)
def list_parameter_versions(query: dict[str, Any], key: str) -> Listing:
    """List a parameter's versions, newest first; the last is the default."""
    return listing("settings", "list_parameter_versions", key=key, **query)


@blueprint.post("/settings/parameters/<key>/rollback")
@needs("settings:admin")
@blueprint.arguments(RollBackSchema)
@blueprint.response(200, ParameterSchema)
def roll_back_parameter(body: dict[str, Any], key: str) -> Any:
    """Put the value of an earlier version in force again, as a new version."""
    return call("settings", "roll_back_parameter", key=key, **body)
