"""Secrets of two-factor sign-in at rest."""

import base64
import secrets

import pytest
from cryptography.exceptions import InvalidTag

from services.users.sealing import KEY_BYTES, SealedSecret, SecretCipher

KEY = secrets.token_bytes(KEY_BYTES)


def test_a_secret_opens_for_its_user_only() -> None:
    cipher = SecretCipher(key=KEY, key_id="1")
    sealed = cipher.seal("JBSWY3DPEHPK3PXP", user_id="usr_1")
    assert cipher.open(sealed, user_id="usr_1") == "JBSWY3DPEHPK3PXP"
    assert b"JBSWY3DPEHPK3PXP" not in sealed.sealed
    assert cipher.seal("JBSWY3DPEHPK3PXP", user_id="usr_1").sealed != sealed.sealed
    with pytest.raises(InvalidTag):
        cipher.open(sealed, user_id="usr_2")


def test_another_key_does_not_open_it() -> None:
    sealed = SecretCipher(key=KEY, key_id="1").seal("JBSWY3DPEHPK3PXP", user_id="usr_1")
    with pytest.raises(LookupError):
        SecretCipher(key=KEY, key_id="2").open(sealed, user_id="usr_1")
    with pytest.raises(InvalidTag):
        SecretCipher(key=secrets.token_bytes(KEY_BYTES), key_id="1").open(sealed, user_id="usr_1")


def test_a_row_that_was_tampered_with_does_not_open() -> None:
    cipher = SecretCipher(key=KEY, key_id="1")
    sealed = cipher.seal("JBSWY3DPEHPK3PXP", user_id="usr_1").sealed
    with pytest.raises(InvalidTag):
        cipher.open(SealedSecret("1", sealed[:-1] + bytes([sealed[-1] ^ 1])), user_id="usr_1")


@pytest.mark.parametrize("missing", ["TOTP_KEY", "TOTP_KEY_ID"])
def test_without_its_key_the_service_does_not_start(missing: str) -> None:
    environ = {"TOTP_KEY": base64.b64encode(KEY).decode(), "TOTP_KEY_ID": "1"}
    assert SecretCipher.from_environment(environ).seal("x", user_id="usr_1").key_id == "1"
    del environ[missing]
    with pytest.raises(KeyError):
        SecretCipher.from_environment(environ)


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="TOTP_KEY"):
        SecretCipher(key=KEY[:16], key_id="1")
