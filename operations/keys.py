"""The keys of an instance, made once and kept in its home: passports, tokens, cards, channels, second factors, bot."""

import base64
import json
import secrets
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from operations.home import Home, write_private

KEY_BYTES = 32
FIRST_KEY_ID = "1"
TOTP_KEY_ID = "1"


def passport_key(home: Home, service: str) -> str:
    """Return the key by which passports for a service are signed and calls to it sealed."""
    return _key(home, f"passport:{service}")


class KeyRing:
    """Keys of one purpose, by ids that are numbers: one is current, earlier ones are retired.

    name, field: where they stand among the home's secrets.
    """

    name: str
    field: str

    def __init__(self, home: Home) -> None:
        self._home = home
        ring: dict[str, Any] | None = home.secrets.get(self.name)
        if ring is None:
            ring = {"current": FIRST_KEY_ID, self.field: {FIRST_KEY_ID: self._first()}}
        self.current: str = ring["current"]
        self._keys: dict[str, Any] = ring[self.field]

    @property
    def retired(self) -> list[str]:
        """The ids of the keys that were current before."""
        return [key_id for key_id in self._keys if int(key_id) < int(self.current)]

    @property
    def upcoming(self) -> str | None:
        """The id of the key that is made and not current yet."""
        return next((key_id for key_id in self._keys if int(key_id) > int(self.current)), None)

    def add(self) -> str:
        """Make a key that is to be the current one, unless there is one. Returns: its id."""
        key_id = self.upcoming or str(int(self.current) + 1)
        self._keys.setdefault(key_id, self._new())
        self._save()
        return key_id

    def use_upcoming(self) -> None:
        """Make the upcoming key the current one."""
        self.current = self.upcoming or self.current
        self._save()

    def drop_retired(self) -> None:
        """Forget the retired keys for good."""
        for key_id in self.retired:
            del self._keys[key_id]
        self._save()

    def environment(self) -> dict[str, str]:
        """Return the keys as the service reads them that uses them."""
        raise NotImplementedError

    def _first(self) -> Any:
        """Return the key of before there was a ring."""
        raise NotImplementedError

    def _new(self) -> Any:
        raise NotImplementedError

    def _save(self) -> None:
        self._home.secrets.set(self.name, {"current": self.current, self.field: self._keys})

    def _forget_first(self, known_as: str) -> None:
        """Forget where the first key stood before there was a ring, once that key is gone."""
        known: dict[str, str] = self._home.secrets.get("keys", {})
        if FIRST_KEY_ID not in self._keys and known.pop(known_as, ""):
            self._home.secrets.set("keys", known)


class CardKeyRing(KeyRing):
    """The pairs of keys of card numbers."""

    name = "card_keys"
    field = "pairs"

    def drop_retired(self) -> None:
        """Forget the retired pairs for good. The first one's index key stays: `PAN_HIDING_KEY` says why."""
        super().drop_retired()
        self._forget_first("pan")

    def environment(self) -> dict[str, str]:
        """Return the keys as the cards service reads them."""
        current = self._keys[self.current]
        retired = self.retired
        further = {k: {**pair, "is_retired": k in retired} for k, pair in self._keys.items() if k != self.current}
        return {
            "PAN_KEY_ID": self.current,
            "PAN_KEY": current["key"],
            "PAN_INDEX_KEY": current["index_key"],
            "PAN_FURTHER_KEYS": json.dumps(further),
            # What devices' ids are hidden under must not change, or the same device would be another one.
            "PAN_HIDING_KEY": _key(self._home, "pan_index"),
        }

    def _first(self) -> dict[str, str]:
        return {"key": _key(self._home, "pan"), "index_key": _key(self._home, "pan_index")}

    def _new(self) -> dict[str, str]:
        return {"key": _new_key(), "index_key": _new_key()}


class ChannelKeyRing(KeyRing):
    """The keys of channels' secrets."""

    name = "channel_keys"
    field = "keys"

    def drop_retired(self) -> None:
        """Forget the retired keys for good."""
        super().drop_retired()
        self._forget_first("channel")

    def environment(self) -> dict[str, str]:
        """Return the keys as the ledger reads them; whoever loses them enters the secrets anew."""
        retired = self.retired
        further = {k: {"key": key, "is_retired": k in retired} for k, key in self._keys.items() if k != self.current}
        return {
            "CHANNEL_KEY_ID": self.current,
            "CHANNEL_KEY": self._keys[self.current],
            "CHANNEL_FURTHER_KEYS": json.dumps(further),
        }

    def _first(self) -> str:
        return _key(self._home, "channel")

    def _new(self) -> str:
        return _new_key()


def card_number_keys(home: Home) -> dict[str, str]:
    """Return the keys of card numbers as the cards service reads them; whoever loses them loses the numbers."""
    return CardKeyRing(home).environment()


def totp_keys(home: Home) -> dict[str, str]:
    """Return the key of two-factor secrets as users reads it; whoever loses it resets everybody's second factor."""
    return {"TOTP_KEY": _key(home, "totp"), "TOTP_KEY_ID": TOTP_KEY_ID}


def payment_secret(home: Home) -> str:
    """Return the secret by which the simulated payment platform signs, as Standard Webhooks writes it."""
    return f"whsec_{_key(home, 'payment_platform')}"


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
        known[name] = _new_key()
        home.secrets.set("keys", known)
    return known[name]


def _new_key() -> str:
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
