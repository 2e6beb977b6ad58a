"""The secrets of two-factor sign-in at rest: sealed with AES-GCM under a key from the environment.

The user's id is bound into the seal, so that a secret copied onto another user's row does not open.
"""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12


@dataclass(frozen=True)
class SealedSecret:
    """A secret that only its key opens, and the id of that key."""

    key_id: str
    sealed: bytes


class SecretCipher:
    """Seals and opens the secrets of two-factor sign-in."""

    def __init__(self, *, key: bytes, key_id: str) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"TOTP_KEY must be {KEY_BYTES} bytes long")
        self._key_id = key_id
        self._aead = AESGCM(key)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "SecretCipher":
        """Return the cipher of TOTP_KEY and TOTP_KEY_ID. Raises: KeyError, ValueError."""
        return cls(key=base64.b64decode(environ["TOTP_KEY"], validate=True), key_id=environ["TOTP_KEY_ID"])

    def seal(self, secret: str, *, user_id: str) -> SealedSecret:
        """Return the secret sealed for this user: a fresh nonce, then the ciphertext and its tag."""
        nonce = os.urandom(NONCE_BYTES)
        return SealedSecret(self._key_id, nonce + self._aead.encrypt(nonce, secret.encode(), user_id.encode()))

    def open(self, sealed: SealedSecret, *, user_id: str) -> str:
        """Return the secret that was sealed for this user.

        Raises: LookupError for a key that we do not hold; cryptography's InvalidTag for a row that was tampered with.
        """
        if sealed.key_id != self._key_id:
            raise LookupError(f"no TOTP key {sealed.key_id!r}")
        nonce, ciphertext = sealed.sealed[:NONCE_BYTES], sealed.sealed[NONCE_BYTES:]
        return self._aead.decrypt(nonce, ciphertext, user_id.encode()).decode()
