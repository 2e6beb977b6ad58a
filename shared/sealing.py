"""Seals what travels over the bus, so that the broker's memory, disk and tools never hold a password or a card number.

One key a service: whoever may call it has the key, and nobody else can read or forge a message. AES-256-GCM; the
key is derived from the passport key, so that neither use weakens the other. Source: RELIABILITY.md R30.
"""

import os
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES = 12


class BrokenSeal(Exception):
    """This was not sealed with our key, for this purpose."""


@lru_cache(maxsize=64)
def _cipher(key: bytes) -> AESGCM:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"countinghouse bus").derive(key)
    return AESGCM(derived)


def seal(body: bytes, *, key: bytes, purpose: str) -> bytes:
    """Return the body sealed for one purpose, such as the correlation id that it belongs to."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + _cipher(key).encrypt(nonce, body, purpose.encode())


def unseal(sealed: bytes, *, key: bytes, purpose: str) -> bytes:
    """Return the body. Raises: BrokenSeal."""
    try:
        return _cipher(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], purpose.encode())
    except (InvalidTag, ValueError) as error:
        raise BrokenSeal from error
