"""Signs access tokens with the house's Ed25519 key, and publishes the keys by which everyone checks them.

The keys stand in a file that may change at any time (shared/signing_keys.py). Source: RELIABILITY.md R28; RFC 9068.
"""

import hashlib
import os
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import jwt
import structlog

from shared.contracts.users import (
    ACCESS_TOKEN_LIFETIME_SECONDS,
    JWT_ALGORITHM,
    JWT_AUDIENCE,
    JWT_ISSUER,
    JWT_TYPE,
    SigningKeysView,
)
from shared.ids import new_id
from shared.signing_keys import SigningKey, published_keys, read_keys, signing_key
from shared.times import utc_now

log = structlog.get_logger(__name__)


class SigningKeys:
    """The private keys of this house, as they stand at each instant."""

    def __init__(self, keys: Callable[[], list[SigningKey]]) -> None:
        self._keys = keys

    @classmethod
    def from_file(cls, path: str) -> "SigningKeys":
        """Read the keys of a file, and again whenever it has changed.

        Raises: OSError, ValueError for a file without a key, or with one that is not Ed25519.
        """
        return cls(_KeyFile(Path(path)).keys)

    def public_view(self) -> SigningKeysView:
        """Return the public keys as a JSON Web Key Set."""
        return {"keys": [key.public_jwk for key in published_keys(self._keys(), utc_now())]}

    def published(self, key_id: str) -> SigningKey | None:
        """Return a key that is published, by its id."""
        return next((key for key in published_keys(self._keys(), utc_now()) if key.key_id == key_id), None)

    def access_token(self, *, user_id: str, session_id: str, now: datetime) -> str:
        """Return a signed access token of a session, good for `ACCESS_TOKEN_LIFETIME_SECONDS`."""
        key = signing_key(self._keys(), now)
        claims = {
            "iss": JWT_ISSUER,
            "aud": JWT_AUDIENCE,
            "sub": user_id,
            "sid": session_id,
            "jti": new_id("jti"),
            "iat": now,
            "nbf": now,
            "exp": now + timedelta(seconds=ACCESS_TOKEN_LIFETIME_SECONDS),
        }
        headers = {"typ": JWT_TYPE, "kid": key.key_id}
        return jwt.encode(claims, key.private, algorithm=JWT_ALGORITHM, headers=headers)


class _KeyFile:
    """A file of keys, read again when it is another one; one that cannot be read leaves what was known."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _identity(path)
        self._known = read_keys(path.read_text())

    def keys(self) -> list[SigningKey]:
        """Return the keys that stand in the file now."""
        try:
            identity = _identity(self._path)
            if identity != self._seen:
                self._seen = identity
                self._known = read_keys(self._path.read_text())
                log.info("signing keys were read anew", keys=len(self._known))
        except (OSError, ValueError) as error:
            log.error("signing keys cannot be read: those that were known go on", error=str(error))
        return self._known


def _identity(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_ino, status.st_mtime_ns


def new_secret() -> str:
    """Return 256 random bits in characters that go into a header."""
    return secrets.token_urlsafe(32)


def secret_hash(secret: str) -> bytes:
    """Return the SHA-256 of a random secret: enough for 256 random bits, where a password needs Argon2."""
    return hashlib.sha256(secret.encode()).digest()
