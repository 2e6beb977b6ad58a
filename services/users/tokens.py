"""Signs access tokens with the house's Ed25519 key, and publishes the keys by which everyone checks them.

The key file holds one or more private keys in PEM. The first one signs; the others were first once, and are still
published until the tokens that they signed have ended. Source: RELIABILITY.md R28; RFC 7517, 7638, 8037, 9068.
"""

import base64
import hashlib
import json
import re
import secrets
from datetime import datetime, timedelta
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from shared.contracts.users import (
    ACCESS_TOKEN_LIFETIME_SECONDS,
    JWT_ALGORITHM,
    JWT_AUDIENCE,
    JWT_ISSUER,
    JWT_TYPE,
    SigningKeysView,
)
from shared.ids import new_id

_PEM = re.compile(rb"-----BEGIN PRIVATE KEY-----.+?-----END PRIVATE KEY-----", re.DOTALL)


class SigningKeys:
    """The private keys of this house, the signing one first."""

    def __init__(self, keys: list[Ed25519PrivateKey]) -> None:
        self._key = keys[0]
        self._public = [_public_jwk(key) for key in keys]

    @classmethod
    def from_file(cls, path: str) -> "SigningKeys":
        """Read the keys of a PEM file.

        Raises: ValueError for a file without a key, or with one that is not Ed25519.
        """
        keys = [load_pem_private_key(pem, password=None) for pem in _PEM.findall(Path(path).read_bytes())]
        ed25519 = [key for key in keys if isinstance(key, Ed25519PrivateKey)]
        if not keys or len(ed25519) != len(keys):
            raise ValueError(f"{path} must hold Ed25519 private keys in PEM, and nothing else")
        return cls(ed25519)

    def public_view(self) -> SigningKeysView:
        """Return the public keys as a JSON Web Key Set."""
        return {"keys": self._public}

    def access_token(self, *, user_id: str, session_id: str, now: datetime) -> str:
        """Return a signed access token of a session, good for `ACCESS_TOKEN_LIFETIME_SECONDS`."""
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
        headers = {"typ": JWT_TYPE, "kid": self._public[0]["kid"]}
        return jwt.encode(claims, self._key, algorithm=JWT_ALGORITHM, headers=headers)


def _public_jwk(key: Ed25519PrivateKey) -> dict[str, str]:
    point = _base64url(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    # RFC 7638: the SHA-256 of the required members in alphabetical order, without spaces.
    required = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": point}, separators=(",", ":"))
    thumbprint = _base64url(hashlib.sha256(required.encode()).digest())
    return {"kty": "OKP", "crv": "Ed25519", "x": point, "kid": thumbprint, "use": "sig", "alg": JWT_ALGORITHM}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def new_secret() -> str:
    """Return 256 random bits in characters that go into a header."""
    return secrets.token_urlsafe(32)


def secret_hash(secret: str) -> bytes:
    """Return the SHA-256 of a random secret: enough for 256 random bits, where a password needs Argon2."""
    return hashlib.sha256(secret.encode()).digest()
