"""Who asks."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.rpc import call
from gateway.schemas.users import MeSchema
from gateway.terms import signed_in

blueprint = Blueprint("me", __name__, description="Who asks, and what they may do.")


@blueprint.get("/me")
@signed_in
@blueprint.response(200, MeSchema)
def get_me() -> Any:
    """Show who asks, with permissions and merchants."""
    return call("users", "get_me")
