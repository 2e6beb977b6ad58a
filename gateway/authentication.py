"""Who is calling: an access token (a JWT that users signed) or an API key, and whether it still holds.

Tokens prove themselves by the signing keys of the users service; whether their session still stands, and with which
permissions, is asked at most every `STATE_FRESH_SECONDS`. While users is away, what it last said holds for
`STATE_GRACE_SECONDS`: nobody can be disabled meanwhile, since users is who disables.
"""

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

import jwt

from gateway.errors import InvalidToken, TokenExpired
from gateway.fresh_cache import FreshCache
from shared.contracts.users import (
    JWT_ALGORITHM,
    JWT_AUDIENCE,
    JWT_CLAIMS,
    JWT_ISSUER,
    JWT_TYPE,
    Introspection,
    SessionOver,
    SigningKeysView,
    split_api_key,
)
from shared.errors import Unauthenticated
from shared.passport import Passport
from shared.permissions import allows
from shared.times import parse_rfc3339, utc_now

STATE_FRESH_SECONDS = 3.0
STATE_GRACE_SECONDS = 60.0
KEYS_FRESH_SECONDS = 300.0
KEYS_GRACE_SECONDS = 24 * 3600.0
UNKNOWN_KEY_SECONDS = 5.0
KEYS_TIMEOUT_SECONDS = 3.0
IMPATIENT_SECONDS = 0.5
TOKENS_MAX = 4096
PASSPORTS_MAX = 16  # of one caller: a session is seldom used from more places at once


class Calls(Protocol):
    """How the gateway itself, rather than a caller, asks a service."""

    def __call__(self, service: str, method: str, /, *, timeout_seconds: float, **arguments: Any) -> Any: ...


class Caller:
    """Who is calling, and what for: a user by a session, or a program by an API key."""

    def __init__(self, state: Introspection, *, actor_type: str, session_id: str) -> None:
        self.must_change_password = state.get("must_change_password", False)
        valid_until = state.get("valid_until")
        self._valid_until = parse_rfc3339(valid_until) if valid_until else None
        merchants = state["merchants"]
        self._facts: dict[str, Any] = {
            "actor_id": state["actor_id"],
            "actor_name": state["actor_name"],
            "actor_type": actor_type,
            "permissions": state["permissions"],
            "merchants": None if merchants == "all" else frozenset(merchants),
            "session_id": session_id,
        }
        self._passports: dict[tuple[str, str], Passport] = {}

    @property
    def is_outdated(self) -> bool:
        """Whether some of what this caller held has ended by itself since users said so."""
        return self._valid_until is not None and self._valid_until <= utc_now()

    def may(self, needed: str) -> bool:
        """Return whether the caller has a permission written as `cards:operate`."""
        return allows(self._facts["permissions"], needed)

    def passport(self, *, ip: str, user_agent: str, request_id: str) -> Passport:
        """Return the passport for one request; the caller's requests from one place share what is signed."""
        known = self._passports.get((ip, user_agent))
        if known is None:
            if len(self._passports) >= PASSPORTS_MAX:
                self._passports.clear()
            known = self._passports[ip, user_agent] = Passport(**self._facts, ip=ip, user_agent=user_agent)
        return known.with_request_id(request_id)


class Authenticator:
    """Turns an Authorization header into the caller that it stands for."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._keys = FreshCache[dict[str, str]](fresh_seconds=KEYS_FRESH_SECONDS, grace_seconds=KEYS_GRACE_SECONDS)
        self._keys_asked_at = 0.0
        self._callers = FreshCache[Caller | None](fresh_seconds=STATE_FRESH_SECONDS, grace_seconds=STATE_GRACE_SECONDS)

    def caller_of(self, authorization: str | None, *, timeout_seconds: float) -> Caller:
        """Return the caller that the header proves.

        Raises, in order: Unauthenticated, InvalidToken, TokenExpired, SessionOver, Unavailable.
        """
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("Send a Bearer token: an access token or an API key.")
        api_key = split_api_key(token)
        if api_key is not None:
            key_id, secret_hash = api_key
            question = {"key_id": key_id, "secret_hash": secret_hash}
            caller = self._caller("introspect_api_key", question, "api_key", "", timeout_seconds)
            if caller is None:
                raise InvalidToken
            return caller
        session_id = str(self._claims_of(token, timeout_seconds)["sid"])
        caller = self._caller("introspect_session", {"session_id": session_id}, "user", session_id, timeout_seconds)
        if caller is None:
            raise SessionOver
        return caller

    def ask_again(self) -> None:
        """Let the next request of everyone ask users, after something there was changed by way of this process."""
        self._callers.expire()

    def _caller(
        self, method: str, question: Mapping[str, str], actor_type: str, session_id: str, timeout_seconds: float
    ) -> Caller | None:
        def fetch(stands_by: bool, seconds_left: float) -> Caller | None:
            patience = min(seconds_left, IMPATIENT_SECONDS) if stands_by else seconds_left
            try:
                state: Introspection = self._calls("users", method, timeout_seconds=patience, **question)
            except Unauthenticated:
                return None
            # What has ended does not begin again, so that it is worth remembering too.
            return Caller(state, actor_type=actor_type, session_id=session_id) if state["active"] else None

        key = (method, *question.values())
        caller = self._callers.get(key, fetch, timeout_seconds=timeout_seconds)
        if caller is not None and caller.is_outdated:
            # Not even while users is away does a grant last longer than it was given for.
            self._callers.forget(key)
            caller = self._callers.get(key, fetch, timeout_seconds=timeout_seconds)
        if caller is not None and caller.must_change_password:
            # Who has just changed it, perhaps by way of another process, is not to be told to change it again.
            self._callers.forget(key)
        return caller

    def _claims_of(self, token: str, timeout_seconds: float) -> dict[str, Any]:
        try:
            claims = _checked_claims(token, self._public_key(_key_id_of(token), timeout_seconds))
        except jwt.ExpiredSignatureError:
            raise TokenExpired from None
        except jwt.InvalidTokenError:
            raise InvalidToken from None
        if claims["exp"] <= time.time():  # a token that was checked before ages too
            raise TokenExpired
        return claims

    def _public_key(self, key_id: str, timeout_seconds: float) -> str:
        """Return the point of a signing key; an unknown key is asked for, but not by each request that names one."""
        keys = self._keys.get("keys", self._fetch_keys, timeout_seconds=timeout_seconds)
        if key_id not in keys and time.monotonic() - self._keys_asked_at > UNKNOWN_KEY_SECONDS:
            self._keys.forget("keys")
            keys = self._keys.get("keys", self._fetch_keys, timeout_seconds=timeout_seconds)
        if key_id not in keys:
            raise InvalidToken
        return keys[key_id]

    def _fetch_keys(self, _stands_by: bool, seconds_left: float) -> dict[str, str]:
        patience = min(seconds_left, KEYS_TIMEOUT_SECONDS)
        answer: SigningKeysView = self._calls("users", "get_signing_keys", timeout_seconds=patience)
        self._keys_asked_at = time.monotonic()
        return {key["kid"]: key["x"] for key in answer["keys"] if key["kty"] == "OKP" and key["crv"] == "Ed25519"}


@lru_cache(maxsize=TOKENS_MAX)
def _key_id_of(token: str) -> str:
    return str(jwt.get_unverified_header(token).get("kid"))


@lru_cache(maxsize=TOKENS_MAX)
def _checked_claims(token: str, public_key: str) -> dict[str, Any]:
    """Return the claims of a token whose signature holds; checking one takes 100 µs, so each is checked once."""
    key = jwt.PyJWK({"kty": "OKP", "crv": "Ed25519", "x": public_key}, algorithm=JWT_ALGORITHM)
    complete = jwt.decode_complete(
        token,
        key,
        algorithms=[JWT_ALGORITHM],
        audience=JWT_AUDIENCE,
        issuer=JWT_ISSUER,
        options={"require": list(JWT_CLAIMS)},
    )
    if complete["header"].get("typ") != JWT_TYPE:
        raise jwt.InvalidTokenError("not an access token")
    return dict(complete["payload"])
