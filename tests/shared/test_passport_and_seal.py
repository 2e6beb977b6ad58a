"""Passports and seals: nobody forges one, stretches one, or uses one for another purpose."""

import time
from dataclasses import replace

import jwt
import pytest

from shared.errors import PermissionDenied
from shared.passport import InvalidPassport, Passport, sign_passport, verify_passport
from shared.rpc.wire import Call
from shared.sealing import BrokenSeal, seal, unseal

KEY, OTHER_KEY = b"k" * 32, b"o" * 32


def test_a_passport_arrives_whole(bob: Passport) -> None:
    token = sign_passport(bob, service="cards", key=KEY)
    assert verify_passport(token, service="cards", key=KEY, request_id="req_1") == bob


def test_a_passport_of_another_key_service_algorithm_or_type_is_refused(bob: Passport) -> None:
    token = sign_passport(bob, service="cards", key=KEY)
    claims = jwt.decode(token, options={"verify_signature": False})
    forged = {
        "another key": sign_passport(bob, service="cards", key=OTHER_KEY),
        "another service": sign_passport(bob, service="ledger", key=KEY),
        "no signature": jwt.encode(claims, None, algorithm="none", headers={"typ": "passport+jwt"}),
        "another type": jwt.encode(claims, KEY, algorithm="HS256"),
        "no expiry": jwt.encode({**claims, "exp": None} | {"exp": 2**40}, OTHER_KEY, algorithm="HS256"),
        "expired": jwt.encode({**claims, "exp": int(time.time()) - 1}, KEY, headers={"typ": "passport+jwt"}),
        "nonsense": "x.y.z",
    }
    for name, bad in forged.items():
        with pytest.raises(InvalidPassport):
            pytest.fail(name) if verify_passport(bad, service="cards", key=KEY) else None


def test_a_passport_that_was_checked_once_still_ages(bob: Passport, monkeypatch: pytest.MonkeyPatch) -> None:
    token = sign_passport(bob, service="cards", key=KEY)
    verify_passport(token, service="cards", key=KEY)
    now = time.time()
    monkeypatch.setattr("shared.passport.time.time", lambda: now + 61)
    with pytest.raises(InvalidPassport):
        verify_passport(token, service="cards", key=KEY)


def test_permissions_include_lower_levels_only(bob: Passport) -> None:
    holder = replace(bob, permissions={"cards": "operate"})
    assert holder.may("cards:read")
    assert holder.may("cards:operate")
    for needed in ("cards:admin", "ledger:read"):
        with pytest.raises(PermissionDenied):
            holder.require(needed)


def test_merchants_are_all_or_those_named(alice: Passport, bob: Passport) -> None:
    assert alice.sees(None)
    assert alice.sees("mer_x")
    assert alice.merchant_filter() is None
    assert not bob.sees(None)
    assert not bob.sees("mer_x")
    assert [bob.sees(m) for m in bob.merchant_filter() or []] == [True]


def test_a_seal_holds_for_one_key_and_purpose() -> None:
    sealed = seal(b"secret", key=KEY, purpose="call 1")
    assert b"secret" not in sealed
    assert unseal(sealed, key=KEY, purpose="call 1") == b"secret"
    for key, purpose, body in (
        (OTHER_KEY, "call 1", sealed),
        (KEY, "call 2", sealed),
        (KEY, "call 1", sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (KEY, "call 1", b""),
    ):
        with pytest.raises(BrokenSeal):
            unseal(body, key=key, purpose=purpose)


def test_the_same_passport_is_signed_once_in_a_while(bob: Passport, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sign_passport(bob, service="cards", key=KEY)
    again = sign_passport(bob.with_request_id("req_other"), service="cards", key=KEY)
    assert again == first
    assert sign_passport(bob, service="ledger", key=KEY) != first

    later, wall = time.monotonic() + 3.1, time.time() + 3.1
    monkeypatch.setattr("shared.passport.time.monotonic", lambda: later)
    monkeypatch.setattr("shared.passport.time.time", lambda: wall)
    assert sign_passport(bob, service="cards", key=KEY) != first


def test_a_changed_passport_is_not_shown_with_the_old_signature(bob: Passport) -> None:
    sign_passport(bob, service="cards", key=KEY)
    changed = replace(bob, permissions={"cards": "none"})
    token = sign_passport(changed, service="cards", key=KEY)
    assert verify_passport(token, service="cards", key=KEY).permissions == {"cards": "none"}


def test_what_is_kept_of_a_request_cannot_be_guessed_without_the_key(bob: Passport) -> None:
    arguments = {"number": "4111111111111111"}
    hashes = {
        Call(service="cards", method="create_card", passport=bob, arguments=arguments, hash_key=key).request_hash
        for key in (KEY, OTHER_KEY, b"")
    }
    assert len(hashes) == 3
