"""Who asks, and where else they are signed in."""

from typing import Any

from gateway import authorization
from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.base import PageQuery
from gateway.schemas.users import MeSchema, SessionSchema
from gateway.terms import signed_in

blueprint = Blueprint("me", __name__, description="Who asks, what they may do, and their sessions.")


@blueprint.get("/me")
@signed_in
@blueprint.response(200, MeSchema)
def get_me() -> Any:
    """Show who asks, with permissions and merchants."""
    return call("users", "get_me")


@blueprint.get("/me/sessions")
@signed_in
@blueprint.arguments(PageQuery, location="query")
@blueprint.listing(SessionSchema)
def list_my_sessions(query: dict[str, Any]) -> Listing:
    """List one's own sessions that can still be used, newest first."""
    return listing("users", "list_my_sessions", **query)


@blueprint.delete("/me/sessions/<session_id>")
@signed_in
@blueprint.response(204)
def end_my_session(session_id: str) -> None:
    """End one of one's own sessions, with all its tokens."""
    call("users", "end_my_session", session_id=session_id)
    authorization.ask_again()
