"""The secrets of channels at rest: sealed with AES-GCM under a key from the environment.

The channel's code is bound into the seal, so that secrets copied onto another channel's row do not open. The key is
changed while channels are used (docs/channels.md "Changing the key"); until that is over, the ones before are known.
"""

import base64
import json
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
KEY_ID_DEFAULT = "1"


class ChannelCipher:
    """Seals and opens the secrets of channels."""

    def __init__(
        self,
        *,
        key: bytes,
        key_id: str = KEY_ID_DEFAULT,
        further: Mapping[str, bytes] | None = None,
        retired: frozenset[str] = frozenset(),
    ) -> None:
        """Take the current key.

        further: keys by id that are known besides: retired ones, and one that is about to be current.
        retired: which of these are retired, so that what is under them moves to the current one.
        """
        known = {key_id: key, **(further or {})}
        if any(len(one) != KEY_BYTES for one in known.values()):
            raise ValueError(f"CHANNEL_KEY must be {KEY_BYTES} bytes long")
        self.key_id = key_id
        self._retired = retired
        self._aeads = {one_id: AESGCM(one) for one_id, one in known.items()}

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "ChannelCipher":
        """Return the cipher of CHANNEL_KEY and CHANNEL_KEY_ID, and of what CHANNEL_FURTHER_KEYS holds besides.

        CHANNEL_FURTHER_KEYS is JSON: key id to `{"key", "is_retired"}`.
        Raises: KeyError, ValueError.
        """
        further = json.loads(environ.get("CHANNEL_FURTHER_KEYS") or "{}")
        return cls(
            key=base64.b64decode(environ["CHANNEL_KEY"], validate=True),
            key_id=environ.get("CHANNEL_KEY_ID") or KEY_ID_DEFAULT,
            further={key_id: base64.b64decode(one["key"], validate=True) for key_id, one in further.items()},
            retired=frozenset(key_id for key_id, one in further.items() if one["is_retired"]),
        )

    @property
    def key_ids(self) -> list[str]:
        """The ids of all keys that are known, the current one first."""
        return list(self._aeads)

    @property
    def retired_key_ids(self) -> list[str]:
        """The ids of the keys whose secrets are to be sealed anew."""
        return sorted(self._retired)

    def seal(self, secrets: Mapping[str, Any], *, code: str) -> bytes | None:
        """Return secrets sealed for this channel, a fresh nonce before them; None where there are none."""
        if not secrets:
            return None
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aeads[self.key_id].encrypt(nonce, orjson.dumps(dict(secrets)), code.encode())

    def open(self, sealed: bytes | None, *, code: str) -> dict[str, Any]:
        """Return the secrets that were sealed for this channel.

        Raises: cryptography's InvalidTag for a row that was tampered with, or is under a key that we do not hold.
        """
        if sealed is None:
            return {}
        secrets: dict[str, Any] = orjson.loads(self._unsealed(sealed, code)[1])
        return secrets

    def key_of(self, sealed: bytes, *, code: str) -> str:
        """Return the id of the key that these secrets are under. Raises: InvalidTag."""
        return self._unsealed(sealed, code)[0]

    def _unsealed(self, sealed: bytes, code: str) -> tuple[str, bytes]:
        for key_id, aead in self._aeads.items():
            try:
                return key_id, aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], code.encode())
            except InvalidTag:
                continue
        raise InvalidTag


@cache
def channel_cipher() -> ChannelCipher:
    """Return this process's cipher. Raises: KeyError, ValueError."""
    return ChannelCipher.from_environment()
