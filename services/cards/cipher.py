"""Card numbers at rest: sealed with AES-GCM, found again by a keyed hash. The keys come from the environment.

The card's id is bound into the seal, so that a sealed number copied onto another row does not open. The index key
is another key than the seal's: whoever has the table and one of the keys still has no numbers. Both are changed
together, while cards are used (docs/cards.md "Changing keys"); until that is over, all pairs are known.
Source: RELIABILITY.md R30; PCI DSS v4.0 3.5.1, 3.7.4.
"""

import base64
import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Self

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12


@dataclass(frozen=True)
class SealedNumber:
    """A number that only its key opens, and the id of that key."""

    key_id: str
    sealed: bytes


@dataclass(frozen=True)
class KeyPair:
    """A key that seals numbers, and one that indexes them. What is under a retired pair moves to the current one."""

    key: bytes = field(repr=False)
    index_key: bytes = field(repr=False)
    is_retired: bool = False

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES or len(self.index_key) != KEY_BYTES:
            raise ValueError(f"card number keys are {KEY_BYTES} bytes long")
        if hmac.compare_digest(self.key, self.index_key):
            raise ValueError("PAN_KEY and PAN_INDEX_KEY must differ")

    @classmethod
    def from_texts(cls, key: str, index_key: str, *, is_retired: bool = False) -> Self:
        """Return the pair of two base64 strings. Raises: ValueError."""
        return cls(base64.b64decode(key, validate=True), base64.b64decode(index_key, validate=True), is_retired)


class NumberCipher:
    """Seals, opens and indexes card numbers."""

    def __init__(
        self,
        *,
        key: bytes,
        key_id: str,
        index_key: bytes,
        further: Mapping[str, KeyPair] | None = None,
        hiding_key: bytes | None = None,
    ) -> None:
        """Take the current pair of keys.

        further: pairs by key id that are known besides: retired ones, and one that is about to be current.
        hiding_key: the key of `hide`, which does not change; None for the index key.
        """
        self.key_id = key_id
        self._pairs = {key_id: KeyPair(key, index_key), **(further or {})}
        self._aeads = {pair_id: AESGCM(pair.key) for pair_id, pair in self._pairs.items()}
        self._hiding_key = hiding_key or index_key

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "NumberCipher":
        """Return the cipher of PAN_KEY, PAN_KEY_ID and PAN_INDEX_KEY, and of what PAN_FURTHER_KEYS holds besides.

        PAN_FURTHER_KEYS is JSON: key id to `{"key", "index_key", "is_retired"}`.
        Raises: KeyError, ValueError.
        """
        further = json.loads(environ.get("PAN_FURTHER_KEYS") or "{}")
        hiding_key = environ.get("PAN_HIDING_KEY")
        return cls(
            key=base64.b64decode(environ["PAN_KEY"], validate=True),
            key_id=environ["PAN_KEY_ID"],
            index_key=base64.b64decode(environ["PAN_INDEX_KEY"], validate=True),
            further={key_id: KeyPair.from_texts(**pair) for key_id, pair in further.items()},
            hiding_key=base64.b64decode(hiding_key, validate=True) if hiding_key else None,
        )

    @property
    def key_ids(self) -> list[str]:
        """The ids of all pairs that are known, the current one first."""
        return list(self._pairs)

    @property
    def retired_key_ids(self) -> list[str]:
        """The ids of the pairs whose numbers are to be sealed anew."""
        return [key_id for key_id, pair in self._pairs.items() if pair.is_retired]

    def seal(self, number: str, *, card_id: str) -> SealedNumber:
        """Return the number sealed for this card: a fresh nonce, then the ciphertext and its tag."""
        nonce = os.urandom(NONCE_BYTES)
        ciphertext = self._aeads[self.key_id].encrypt(nonce, number.encode(), card_id.encode())
        return SealedNumber(self.key_id, nonce + ciphertext)

    def open(self, sealed: SealedNumber, *, card_id: str) -> str:
        """Return the number that was sealed for this card.

        Raises: LookupError for a key that we do not hold; cryptography's InvalidTag for a row that was tampered with.
        """
        if sealed.key_id not in self._aeads:
            raise LookupError(f"no card number key {sealed.key_id!r}")
        nonce, ciphertext = sealed.sealed[:NONCE_BYTES], sealed.sealed[NONCE_BYTES:]
        return self._aeads[sealed.key_id].decrypt(nonce, ciphertext, card_id.encode()).decode()

    def index(self, number: str) -> bytes:
        """Return the keyed hash under which a number is written."""
        return self._hash(self._pairs[self.key_id].index_key, number)

    def indexes(self, number: str) -> list[bytes]:
        """Return every keyed hash under which a number may stand while keys change, the current one first."""
        return [self._hash(pair.index_key, number) for pair in self._pairs.values()]

    def hide(self, text: str) -> str:
        """Return a keyed hash in place of a text that may be a card number; it stays the same when keys change."""
        return self._hash(self._hiding_key, text).hex()

    @staticmethod
    def _hash(key: bytes, text: str) -> bytes:
        return hmac.digest(key, text.encode(), "sha256")


@cache
def number_cipher() -> NumberCipher:
    """Return this process's cipher. Raises: KeyError, ValueError."""
    return NumberCipher.from_environment()
