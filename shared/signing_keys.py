"""The file of the private keys that sign access tokens: Ed25519 in PEM, each with the instant from which it signs.

A key that is written down signs when its time comes, and the one before it is published until the last token that it
signed has ended. So a rotation is one write of this file: nobody has to come back for a second step, every instance
that reads it changes over at the same instant, and the new key is known long before its first token is shown.
Source: RELIABILITY.md R28; RFC 7517, 7638, 8037.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from shared.contracts.users import ACCESS_TOKEN_LIFETIME_SECONDS, JWT_ALGORITHM
from shared.times import parse_rfc3339, rfc3339

ALWAYS = datetime.min.replace(tzinfo=UTC)
CLOCKS_DIFFER_SECONDS = 60
_KEY = re.compile(
    r"(?:signs-from: (\S+)\s+)?(-----BEGIN PRIVATE KEY-----.+?-----END PRIVATE KEY-----)", re.DOTALL | re.ASCII
)


@dataclass(frozen=True)
class SigningKey:
    """A private key, and from when on it signs."""

    private: Ed25519PrivateKey
    signs_from: datetime = ALWAYS

    @classmethod
    def new(cls, *, signs_from: datetime = ALWAYS) -> "SigningKey":
        """Return a fresh key."""
        return cls(Ed25519PrivateKey.generate(), signs_from)

    @cached_property
    def public_jwk(self) -> dict[str, str]:
        """The public half as a JSON Web Key, named by its thumbprint."""
        point = _base64url(self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
        # RFC 7638: the SHA-256 of the required members in alphabetical order, without spaces.
        required = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": point}, separators=(",", ":"))
        thumbprint = _base64url(hashlib.sha256(required.encode()).digest())
        return {"kty": "OKP", "crv": "Ed25519", "x": point, "kid": thumbprint, "use": "sig", "alg": JWT_ALGORITHM}

    @property
    def key_id(self) -> str:
        """The name by which tokens say which key signed them."""
        return self.public_jwk["kid"]


def read_keys(text: str) -> list[SigningKey]:
    """Return the keys in the text of a key file.

    Raises: ValueError for a text without a key, or with one that is not Ed25519.
    """
    keys = []
    for signs_from, pem in _KEY.findall(text):
        private = load_pem_private_key(pem.encode(), password=None)
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError("a key that signs access tokens is an Ed25519 key")
        keys.append(SigningKey(private, parse_rfc3339(signs_from) if signs_from else ALWAYS))
    if not keys:
        raise ValueError("there is no Ed25519 private key in PEM")
    return keys


def written(keys: Iterable[SigningKey]) -> str:
    """Return the text of a key file with these keys."""
    parts = []
    for key in keys:
        if key.signs_from != ALWAYS:
            parts.append(f"signs-from: {rfc3339(key.signs_from)}\n")
        parts.append(key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    return "".join(parts)


def signing_key(keys: list[SigningKey], now: datetime) -> SigningKey:
    """Return the key that signs at an instant: of those whose time has come the latest, the first of equal ones."""
    return max([key for key in keys if key.signs_from <= now] or keys, key=lambda key: key.signs_from)


def published_keys(keys: list[SigningKey], now: datetime) -> list[SigningKey]:
    """Return the keys by which tokens are checked at an instant, the signing one first.

    Among them are those that will sign, and those whose last token may not have ended yet.
    """
    signing = signing_key(keys, now)
    return [signing, *(key for key in keys if key is not signing and not _is_over(key, keys, now))]


def _is_over(key: SigningKey, keys: list[SigningKey], now: datetime) -> bool:
    tokens_end = timedelta(seconds=ACCESS_TOKEN_LIFETIME_SECONDS + CLOCKS_DIFFER_SECONDS)
    return any(key.signs_from < other.signs_from <= now - tokens_end for other in keys)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
