"""Card numbers at rest: sealed with AES-GCM, found again by a keyed hash. The keys come from the environment.

The card's id is bound into the seal, so that a sealed number copied onto another row does not open. The index key
is another key than the seal's: whoever has the table and one of the keys still has no numbers.
Source: RELIABILITY.md R30; PCI DSS v4.0 3.5.1.
"""

import base64
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12


@dataclass(frozen=True)
class SealedNumber:
    """A number that only its key opens, and the id of that key."""

    key_id: str
    sealed: bytes


class NumberCipher:
    """Seals, opens and indexes card numbers."""

    def __init__(self, *, key: bytes, key_id: str, index_key: bytes) -> None:
        if len(key) != KEY_BYTES or len(index_key) != KEY_BYTES:
            raise ValueError(f"card number keys are {KEY_BYTES} bytes long")
        if hmac.compare_digest(key, index_key):
            raise ValueError("PAN_KEY and PAN_INDEX_KEY must differ")
        self._key_id = key_id
        self._aead = AESGCM(key)
        self._index_key = index_key

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "NumberCipher":
        """Return the cipher of PAN_KEY, PAN_KEY_ID and PAN_INDEX_KEY. Raises: KeyError, ValueError."""
        return cls(
            key=base64.b64decode(environ["PAN_KEY"], validate=True),
            key_id=environ["PAN_KEY_ID"],
            index_key=base64.b64decode(environ["PAN_INDEX_KEY"], validate=True),
        )

    def seal(self, number: str, *, card_id: str) -> SealedNumber:
        """Return the number sealed for this card: a fresh nonce, then the ciphertext and its tag."""
        nonce = os.urandom(NONCE_BYTES)
        return SealedNumber(self._key_id, nonce + self._aead.encrypt(nonce, number.encode(), card_id.encode()))

    def open(self, sealed: SealedNumber, *, card_id: str) -> str:
        """Return the number that was sealed for this card.

        Raises: LookupError for a key that we do not hold; cryptography's InvalidTag for a row that was tampered with.
        """
        if sealed.key_id != self._key_id:
            raise LookupError(f"no card number key {sealed.key_id!r}")
        nonce, ciphertext = sealed.sealed[:NONCE_BYTES], sealed.sealed[NONCE_BYTES:]
        return self._aead.decrypt(nonce, ciphertext, card_id.encode()).decode()

    def index(self, number: str) -> bytes:
        """Return the keyed hash by which equal numbers are found."""
        return hmac.digest(self._index_key, number.encode(), "sha256")


@cache
def number_cipher() -> NumberCipher:
    """Return this process's cipher. Raises: KeyError, ValueError."""
    return NumberCipher.from_environment()
