"""Staff: add, change, disable, enable, reset the password, end sessions."""

from typing import Any

from gateway import authorization
from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.base import PageQuery, ReasonSchema
from gateway.schemas.users import (
    AccessSchema,
    LeastPrivilegeSchema,
    NewUserSchema,
    OptionalReasonSchema,
    SessionSchema,
    UserChangesSchema,
    UserQuery,
    UserSchema,
    UserWithPasswordSchema,
)
from gateway.terms import needs

blueprint = Blueprint("users", __name__, description="Members of staff.")


@blueprint.get("/users")
@needs("users:read")
@blueprint.arguments(UserQuery, location="query")
@blueprint.listing(UserSchema)
def list_users(query: dict[str, Any]) -> Listing:
    """List users, newest first."""
    return listing("users", "list_users", **query)


@blueprint.post("/users")
@needs("users:admin")
@blueprint.arguments(NewUserSchema)
@blueprint.response(201, UserWithPasswordSchema)
def create_user(body: dict[str, Any]) -> Any:
    """Add a user, with a one-time password to pass on."""
    return call("users", "create_user", **body)


@blueprint.get("/users/<user_id>")
@needs("users:read")
@blueprint.response(200, UserSchema)
def get_user(user_id: str) -> Any:
    """Show one user."""
    return call("users", "get_user", user_id=user_id)


@blueprint.patch("/users/<user_id>")
@needs("users:admin")
@blueprint.arguments(UserChangesSchema)
@blueprint.response(200, UserSchema)
def update_user(body: dict[str, Any], user_id: str) -> Any:
    """Change a user's fields, roles or merchants; what is not named stays."""
    user = call("users", "update_user", user_id=user_id, changes=body)
    authorization.ask_again()
    return user


@blueprint.post("/users/<user_id>/disable")
@needs("users:admin")
@blueprint.arguments(ReasonSchema)
@blueprint.response(200, UserSchema)
def disable_user(body: dict[str, Any], user_id: str) -> Any:
    """Shut a user out, at once; the last administrator stays."""
    user = call("users", "disable_user", user_id=user_id, **body)
    authorization.ask_again()
    return user


@blueprint.post("/users/<user_id>/enable")
@needs("users:admin")
@blueprint.arguments(OptionalReasonSchema, required=False)
@blueprint.response(200, UserSchema)
def enable_user(body: dict[str, Any], user_id: str) -> Any:
    """Let a disabled user sign in again."""
    return call("users", "enable_user", user_id=user_id, **body)


@blueprint.post("/users/<user_id>/reset-password")
@needs("users:admin")
@blueprint.arguments(OptionalReasonSchema, required=False)
@blueprint.response(200, UserWithPasswordSchema)
def reset_password(body: dict[str, Any], user_id: str) -> Any:
    """Give a user a one-time password and end all their sessions."""
    user = call("users", "reset_password", user_id=user_id, **body)
    authorization.ask_again()
    return user


@blueprint.post("/users/<user_id>/reset-totp")
@needs("users:admin")
@blueprint.arguments(ReasonSchema)
@blueprint.response(200, UserSchema)
def reset_totp(body: dict[str, Any], user_id: str) -> Any:
    """Turn off the two-factor sign-in of a user who has lost the device and the recovery codes."""
    return call("users", "reset_totp", user_id=user_id, **body)


@blueprint.get("/users/<user_id>/access")
@needs("users:read")
@blueprint.response(200, AccessSchema)
def get_user_access(user_id: str) -> Any:
    """Show what a user can see and do, and which roles give it."""
    return call("users", "get_user_access", user_id=user_id)


@blueprint.get("/users/least-privilege")
@needs("users:read")
@blueprint.arguments(UserQuery, location="query")
@blueprint.listing(LeastPrivilegeSchema)
def list_least_privilege(query: dict[str, Any]) -> Listing:
    """List what users hold against what they used in 90 days, newest users first."""
    return listing("users", "list_least_privilege", **query)


@blueprint.get("/users/<user_id>/least-privilege")
@needs("users:read")
@blueprint.response(200, LeastPrivilegeSchema)
def get_least_privilege(user_id: str) -> Any:
    """Show what a user holds against what they used in 90 days."""
    return call("users", "get_least_privilege", user_id=user_id)


@blueprint.post("/users/<user_id>/shrink")
@needs("users:admin")
@blueprint.arguments(ReasonSchema)
@blueprint.response(200, UserSchema)
def shrink_user(body: dict[str, Any], user_id: str) -> Any:
    """Replace a user's roles by the least that cover what they used in 90 days; it never gives anything."""
    user = call("users", "shrink_user", user_id=user_id, **body)
    authorization.ask_again()
    return user


@blueprint.get("/users/<user_id>/sessions")
@needs("users:admin")
@blueprint.arguments(PageQuery, location="query")
@blueprint.listing(SessionSchema)
def list_user_sessions(query: dict[str, Any], user_id: str) -> Listing:
    """List a user's sessions that can still be used, newest first."""
    return listing("users", "list_user_sessions", user_id=user_id, **query)


@blueprint.delete("/users/<user_id>/sessions/<session_id>")
@needs("users:admin")
@blueprint.response(204)
def end_user_session(user_id: str, session_id: str) -> None:
    """End one session of a user, with all its tokens; the user may sign in again."""
    call("users", "end_user_session", user_id=user_id, session_id=session_id)
    authorization.ask_again()
