"""The secrets of channels at rest: sealed with AES-GCM under a key from the environment.

The channel's code is bound into the seal, so that secrets copied onto another channel's row do not open.
"""

import base64
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12


class ChannelCipher:
    """Seals and opens the secrets of channels."""

    def __init__(self, *, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"CHANNEL_KEY must be {KEY_BYTES} bytes long")
        self._aead = AESGCM(key)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "ChannelCipher":
        """Return the cipher of CHANNEL_KEY. Raises: KeyError, ValueError."""
        return cls(key=base64.b64decode(environ["CHANNEL_KEY"], validate=True))

    def seal(self, secrets: Mapping[str, Any], *, code: str) -> bytes | None:
        """Return secrets sealed for this channel, a fresh nonce before them; None where there are none."""
        if not secrets:
            return None
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, orjson.dumps(dict(secrets)), code.encode())

    def open(self, sealed: bytes | None, *, code: str) -> dict[str, Any]:
        """Return the secrets that were sealed for this channel.

        Raises: cryptography's InvalidTag for a row that was tampered with.
        """
        if sealed is None:
            return {}
        content = self._aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], code.encode())
        secrets: dict[str, Any] = orjson.loads(content)
        return secrets


@cache
def channel_cipher() -> ChannelCipher:
    """Return this process's cipher. Raises: KeyError, ValueError."""
    return ChannelCipher.from_environment()
