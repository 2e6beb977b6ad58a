"""Signing in and out, one's own password, and one's own second factor."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gateway import authorization
from gateway.blueprint import Blueprint
from gateway.context import context
from gateway.rpc import call
from gateway.schemas.auth import (
    CredentialsSchema,
    LogoutQuery,
    OtpSchema,
    PasswordChangeSchema,
    PasswordSchema,
    RefreshTokenSchema,
    SigningKeysSchema,
    TokenPairSchema,
    TotpEnrolmentSchema,
)
from gateway.terms import open_to_expired_password, public, signed_in
from shared.contracts.users import SignInBusy

AT_ONCE_MAX = 8  # the service hashes two passwords at once; the rest of a crowd waits here, where waiting is cheap

blueprint = Blueprint(
    "auth", __name__, description="Sign-in: access tokens, refresh tokens, one's own password and second factor."
)
_door = threading.BoundedSemaphore(AT_ONCE_MAX)


@contextmanager
def _through_the_door() -> Iterator[None]:
    if not _door.acquire(timeout=context().seconds_left()):
        raise SignInBusy(retry_after_seconds=2)
    try:
        yield
    finally:
        _door.release()


@blueprint.post("/auth/login")
@public
@blueprint.arguments(CredentialsSchema)
@blueprint.response(200, TokenPairSchema)
def sign_in(body: dict[str, Any]) -> Any:
    """Sign in with name and password, and the second factor where there is one."""
    with _through_the_door():
        return call("users", "sign_in", **body)


@blueprint.post("/auth/refresh")
@public
@blueprint.arguments(RefreshTokenSchema)
@blueprint.response(200, TokenPairSchema)
def refresh_session(body: dict[str, Any]) -> Any:
    """Spend a refresh token for a new pair of tokens; showing a spent one ends the session."""
    return call("users", "refresh_session", **body)


@blueprint.post("/auth/logout")
@signed_in
@blueprint.arguments(LogoutQuery, location="query")
@blueprint.response(204)
def end_session(query: dict[str, Any]) -> None:
    """Sign out: end this session, or with `all=true` every session of the user."""
    call("users", "end_session", **query)
    authorization.ask_again()


@blueprint.post("/auth/password")
@signed_in
@open_to_expired_password
@blueprint.arguments(PasswordChangeSchema)
@blueprint.response(204)
def change_password(body: dict[str, Any]) -> None:
    """Change one's own password, which ends one's other sessions."""
    with _through_the_door():
        call("users", "change_password", **body)
    authorization.ask_again()


@blueprint.post("/auth/totp")
@signed_in
@blueprint.response(200, TotpEnrolmentSchema)
def begin_totp() -> Any:
    """Get a secret and recovery codes for two-factor sign-in, which is on once it is confirmed."""
    return call("users", "begin_totp")


@blueprint.post("/auth/totp/confirm")
@signed_in
@blueprint.arguments(OtpSchema)
@blueprint.response(204)
def confirm_totp(body: dict[str, Any]) -> None:
    """Turn two-factor sign-in on, by a first code of the authenticator."""
    call("users", "confirm_totp", **body)


@blueprint.delete("/auth/totp")
@signed_in
@blueprint.arguments(PasswordSchema)
@blueprint.response(204)
def remove_totp(body: dict[str, Any]) -> None:
    """Turn one's own two-factor sign-in off."""
    with _through_the_door():
        call("users", "remove_totp", **body)


@blueprint.get("/.well-known/jwks.json")
@public
@blueprint.response(200, SigningKeysSchema)
def list_signing_keys() -> Any:
    """List the public keys by which access tokens can be checked."""
    return call("users", "get_signing_keys")
