"""Two-factor sign-in: time-based codes, and the recovery codes for whoever has lost the device that makes them.

Source: RFC 6238 with its defaults (SHA-1, six digits, 30 s), which every authenticator app knows.
"""

import base64
import hashlib
import hmac
import secrets
from typing import Final

import pyotp

ISSUER: Final = "Countinghouse"
STEP_SECONDS: Final = 30
STEPS_AROUND: Final = 1  # a clock may be half a minute off, and typing takes a while
RECOVERY_CODES: Final = 10
RECOVERY_CODE_BYTES: Final = 10  # 80 bits, for which a plain SHA-256 is enough
_GROUP: Final = 4


def new_secret() -> str:
    """Return 160 random bits in base32, as authenticator apps take them."""
    return pyotp.random_base32()


def otpauth_uri(secret: str, *, username: str) -> str:
    """Return the address that an authenticator app reads from a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=username, issuer_name=ISSUER)


def matching_step(secret: str, otp: str, *, at_seconds: float, after_step: int) -> int | None:
    """Return the time step that a code is of: the present one or a neighbour, and later than the last one used."""
    digits, totp, now = otp.replace(" ", ""), pyotp.TOTP(secret), int(at_seconds) // STEP_SECONDS
    fitting = [
        step
        for step in range(now - STEPS_AROUND, now + STEPS_AROUND + 1)
        if hmac.compare_digest(totp.generate_otp(step).encode(), digits.encode()) and step > after_step
    ]
    return fitting[0] if fitting else None


def new_recovery_codes() -> list[str]:
    """Return codes such as `abcd-efgh-ijkl-mnop`, each of which signs in once without the device."""
    return [_grouped(secrets.token_bytes(RECOVERY_CODE_BYTES)) for _ in range(RECOVERY_CODES)]


def recovery_code_hash(code: str, *, user_id: str) -> bytes:
    """Return what is stored of a recovery code, however its letters and hyphens were typed."""
    plain = code.replace("-", "").replace(" ", "").casefold()
    return hashlib.sha256(f"{user_id} {plain}".encode()).digest()


def _grouped(random_bytes: bytes) -> str:
    text = base64.b32encode(random_bytes).decode().casefold()
    return "-".join(text[start : start + _GROUP] for start in range(0, len(text), _GROUP))
