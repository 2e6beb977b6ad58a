"""The keys of an instance, made once and kept in its home: passports, tokens, cards, channels, second factors, bot."""

import base64
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from operations.home import Home, write_private

KEY_BYTES = 32
PAN_KEY_ID = "1"
TOTP_KEY_ID = "1"


def passport_key(home: Home, service: str) -> str:
    """Return the key by which passports for a service are signed and calls to it sealed."""
    return _key(home, f"passport:{service}")


def card_number_keys(home: Home) -> dict[str, str]:
    """Return the keys of card numbers as the cards service reads them; whoever loses them loses the numbers."""
    return {"PAN_KEY": _key(home, "pan"), "PAN_INDEX_KEY": _key(home, "pan_index"), "PAN_KEY_ID": PAN_KEY_ID}


def totp_keys(home: Home) -> dict[str, str]:
    """Return the key of two-factor secrets as users reads it; whoever loses it resets everybody's second factor."""
    return {"TOTP_KEY": _key(home, "totp"), "TOTP_KEY_ID": TOTP_KEY_ID}


def channel_key(home: Home) -> str:
    """Return the key of the secrets of channels as the ledger reads it; whoever loses it enters them anew."""
    return _key(home, "channel")


def signing_key_file(home: Home) -> Path:
    """Return the file of the private key that signs access tokens."""
    path = home.keys / "signing.pem"
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    return path


def bot_token(home: Home) -> str:
    """Return the token that the bot shows to the simulated Bot API."""
    known: dict[str, str] = home.secrets.get("keys", {})
    if "bot_token" not in known:
        known["bot_token"] = f"1000000001:{secrets.token_urlsafe(24)}"
        home.secrets.set("keys", known)
    return known["bot_token"]


def _key(home: Home, name: str) -> str:
    known: dict[str, str] = home.secrets.get("keys", {})
    if name not in known:
        known[name] = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        home.secrets.set("keys", known)
    return known[name]
