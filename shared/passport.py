"""The passport: who asks, with which permissions, for which merchants. Short-lived, signed for one service.

The gateway signs one for each request, a service signs one when it calls another on somebody's behalf or its own.
Whoever receives it checks signature, audience and expiry before anything else (RELIABILITY.md R27).
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import jwt

from shared.errors import PermissionDenied, Unauthenticated
from shared.permissions import MODULES, allows

LIFETIME_SECONDS = 60
SIGNED_FRESH_SECONDS = 3
_ALGORITHM = "HS256"  # both ends hold the callee's key; 6 µs to check, where Ed25519 takes 120
_TYPE = "passport+jwt"


class InvalidPassport(Unauthenticated):
    """The caller showed no valid passport."""


@dataclass(frozen=True, kw_only=True)
class Passport:
    """Who asks. `merchants` is None for somebody who sees all of them."""

    actor_id: str
    actor_name: str
    actor_type: str
    permissions: Mapping[str, str]
    merchants: frozenset[str] | None = None
    session_id: str = ""
    ip: str = ""
    user_agent: str = ""
    request_id: str = field(default="", compare=False)
    _tokens: dict[tuple[str, bytes], tuple[float, str]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def may(self, needed: str) -> bool:
        """Return whether the holder has a permission written as `cards:operate`."""
        return allows(self.permissions, needed)

    def require(self, needed: str) -> None:
        """Refuse a holder who lacks the permission. Raises: PermissionDenied, with `missing`."""
        if not self.may(needed):
            raise PermissionDenied(f"This needs the permission {needed}.", missing=needed)

    def sees(self, merchant_id: str | None) -> bool:
        """Return whether rows of this merchant are the holder's to see; rows of none need all merchants."""
        return self.merchants is None or merchant_id in self.merchants

    def merchant_filter(self) -> list[str] | None:
        """Return the merchants to narrow a query to, or None for all."""
        return None if self.merchants is None else sorted(self.merchants)

    def with_request_id(self, request_id: str) -> "Passport":
        """Return the same passport, shown for another request; what was signed for the one serves the other."""
        other = replace(self, request_id=request_id)
        object.__setattr__(other, "_tokens", self._tokens)
        return other


def service_passport(service: str, *, request_id: str = "") -> Passport:
    """Return the passport by which a service acts on its own account, such as a scheduled task."""
    return Passport(
        actor_id=f"service:{service}",
        actor_name=service,
        actor_type="service",
        permissions=dict.fromkeys(MODULES, "admin"),
        request_id=request_id,
    )


def sign_passport(passport: Passport, *, service: str, key: bytes) -> str:
    """Return the passport as a token that only this service takes, for `LIFETIME_SECONDS` at most.

    The same passport gets the same token for `SIGNED_FRESH_SECONDS`: signing takes 20 µs, and reading a new one 30.
    """
    now = time.monotonic()
    signed = passport._tokens.get((service, key))
    if signed is not None and now - signed[0] < SIGNED_FRESH_SECONDS:
        return signed[1]
    token = _signed(passport, service, key)
    passport._tokens[service, key] = (now, token)
    return token


def _signed(passport: Passport, service: str, key: bytes) -> str:
    claims: dict[str, Any] = {
        "aud": service,
        "exp": int(time.time()) + LIFETIME_SECONDS,
        "sub": passport.actor_id,
        "name": passport.actor_name,
        "act": passport.actor_type,
        "perms": dict(passport.permissions),
        "mer": passport.merchant_filter(),
        "sid": passport.session_id,
        "ip": passport.ip,
        "ua": passport.user_agent,
    }
    return jwt.encode(claims, key, algorithm=_ALGORITHM, headers={"typ": _TYPE})


@lru_cache(maxsize=4096)
def _checked_claims(token: str, service: str, key: bytes) -> dict[str, Any]:
    try:
        options: Any = {"require": ["exp", "aud", "sub"]}
        complete = jwt.decode_complete(token, key, algorithms=[_ALGORITHM], audience=service, options=options)
    except jwt.InvalidTokenError as error:
        raise InvalidPassport(str(error)) from None
    if complete["header"].get("typ") != _TYPE:
        raise InvalidPassport("not a passport")
    return dict(complete["payload"])


def verify_passport(token: str, *, service: str, key: bytes, request_id: str = "") -> Passport:
    """Return the passport in a token, checked for signature, type, audience and expiry.

    Raises: InvalidPassport.
    """
    claims = _checked_claims(token, service, key)
    if claims["exp"] <= time.time():  # a cached token ages too
        raise InvalidPassport("expired")
    return Passport(
        actor_id=claims["sub"],
        actor_name=claims["name"],
        actor_type=claims["act"],
        permissions=claims["perms"],
        merchants=None if claims["mer"] is None else frozenset(claims["mer"]),
        session_id=claims["sid"],
        ip=claims["ip"],
        user_agent=claims["ua"],
        request_id=request_id,
    )
