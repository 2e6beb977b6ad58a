"""Codes by time, and recovery codes."""

import base64

import pytest

from services.users.domain.totp import (
    RECOVERY_CODES,
    STEP_SECONDS,
    matching_step,
    new_recovery_codes,
    new_secret,
    otpauth_uri,
    recovery_code_hash,
)

RFC_SECRET = base64.b32encode(b"12345678901234567890").decode()


@pytest.mark.parametrize(
    ("at_seconds", "code"),
    # RFC 6238, appendix B: the last six digits of its SHA-1 rows.
    [(59, "287082"), (1111111109, "081804"), (1111111111, "050471"), (1234567890, "005924"), (2000000000, "279037")],
)
def test_codes_are_those_of_the_standard(at_seconds: int, code: str) -> None:
    step = at_seconds // STEP_SECONDS
    assert matching_step(RFC_SECRET, code, at_seconds=at_seconds, after_step=0) == step
    assert matching_step(RFC_SECRET, f"{code[:3]} {code[3:]}", at_seconds=at_seconds, after_step=0) == step


@pytest.mark.parametrize(
    ("off_seconds", "fits"), [(-60, False), (-30, True), (0, True), (29, True), (30, True), (60, False)]
)
def test_a_clock_may_be_one_step_off(off_seconds: int, fits: bool) -> None:
    at_seconds = 1234567890 + off_seconds
    found = matching_step(RFC_SECRET, "005924", at_seconds=at_seconds, after_step=0)
    assert (found is not None) is fits


def test_a_step_that_was_used_fits_no_more_nor_an_earlier_one() -> None:
    step = 1234567890 // STEP_SECONDS
    assert matching_step(RFC_SECRET, "005924", at_seconds=1234567890, after_step=step - 1) == step
    assert matching_step(RFC_SECRET, "005924", at_seconds=1234567890, after_step=step) is None
    assert matching_step(RFC_SECRET, "005924", at_seconds=1234567890, after_step=step + 1) is None


@pytest.mark.parametrize("otp", ["", "005925", "5924", "0059240", "٠٠٥٩٢٤", "abcd-efgh-ijkl-mnop", "-1"])
def test_what_is_not_the_code_does_not_fit(otp: str) -> None:
    assert matching_step(RFC_SECRET, otp, at_seconds=1234567890, after_step=0) is None


def test_address_for_the_app_names_house_and_user() -> None:
    uri = otpauth_uri(RFC_SECRET, username="dora@aurora")
    assert uri.startswith("otpauth://totp/Countinghouse:dora%40aurora?")
    assert f"secret={RFC_SECRET}" in uri
    assert "issuer=Countinghouse" in uri


def test_secrets_have_160_bits_and_differ() -> None:
    secrets = {new_secret() for _ in range(20)}
    assert len(secrets) == 20
    assert {len(base64.b32decode(secret)) for secret in secrets} == {20}


def test_recovery_codes_differ_and_are_found_however_typed() -> None:
    codes = new_recovery_codes()
    assert len(set(codes)) == RECOVERY_CODES
    code = codes[0]
    stored = recovery_code_hash(code, user_id="usr_1")
    assert recovery_code_hash(f" {code.upper().replace('-', ' ')} ", user_id="usr_1") == stored
    assert recovery_code_hash(codes[1], user_id="usr_1") != stored
    assert recovery_code_hash(code, user_id="usr_2") != stored
