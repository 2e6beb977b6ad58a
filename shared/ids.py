"""Opaque identifiers whose order is roughly that of their making, so that indexes grow at one end."""

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
_TIME_CHARACTERS = 10
_RANDOM_CHARACTERS = 16  # 80 bits


def _base32(number: int, length: int) -> str:
    characters = []
    for _ in range(length):
        number, remainder = divmod(number, 32)
        characters.append(_ALPHABET[remainder])
    return "".join(reversed(characters))


def new_id(prefix: str) -> str:
    """Return a fresh identifier such as `mer_06f4…`: milliseconds since the epoch, then 80 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    return f"{prefix}_{_base32(milliseconds, _TIME_CHARACTERS)}{_base32(secrets.randbits(80), _RANDOM_CHARACTERS)}"
