"""Tokens, API keys, and whether what stands behind them still holds."""

import base64
import json
import time
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway import authentication
from shared import errors
from shared.times import rfc3339, utc_now
from tests.gateway.conftest import Gateway
from tests.gateway.people import AURORA, FakeServices

MINE = "/api/v1/lamps/mine"
API_KEY = "chk_" + "0" * 26 + "_" + "s" * 43


@pytest.fixture(autouse=True)
def lamp(services: FakeServices) -> None:
    """Let the route that these tests ask answer."""
    services.answer("users", "show_my_lamp", {"id": "l1"})


def code_of(gateway: Gateway, authorization: str) -> str:
    response = gateway.client(authorization).get(MINE)
    assert response.status_code == 401
    code: str = response.get_json(force=True)["code"]
    return code


def test_token_makes_the_passport(gateway: Gateway, services: FakeServices) -> None:
    assert gateway.bob.get(MINE, headers={"User-Agent": "curl/8"}).status_code == 200

    passport = services.calls_of("users", "show_my_lamp")[0].passport
    assert (passport.actor_id, passport.actor_name, passport.actor_type) == ("usr_bob", "bob", "user")
    assert (passport.session_id, passport.ip, passport.user_agent) == ("ses_bob", "127.0.0.1", "curl/8")
    assert passport.merchants == frozenset({AURORA})
    assert passport.permissions["cards"] == "operate"


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Basic YTpi", "Token x"])
def test_without_a_bearer_token_there_is_nobody(gateway: Gateway, authorization: str) -> None:
    assert code_of(gateway, authorization) == "unauthenticated"


def test_expired_token_is_told_apart(gateway: Gateway, services: FakeServices) -> None:
    assert code_of(gateway, f"Bearer {services.token('alice', exp=int(time.time()) - 1)}") == "token_expired"


def test_token_that_was_checked_before_expires_too(
    gateway: Gateway, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = gateway.client(f"Bearer {services.token('alice', exp=int(time.time()) + 5)}")
    assert client.get(MINE).status_code == 200
    monkeypatch.setattr(authentication.time, "time", lambda: 5_000_000_000.0)
    assert client.get(MINE).get_json(force=True)["code"] == "token_expired"


@pytest.mark.parametrize(
    "changes",
    [{"iss": "somebody"}, {"aud": "other"}, {"nbf": 5_000_000_000}]
    + [{claim: None} for claim in ("iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp")],
)
def test_token_with_a_wrong_or_missing_claim_is_invalid(
    gateway: Gateway, services: FakeServices, changes: dict[str, Any]
) -> None:
    assert code_of(gateway, f"Bearer {services.token('alice', **changes)}") == "invalid_token"


@pytest.mark.parametrize("header", [{"typ": "JWT"}, {"typ": "passport+jwt"}, {"kid": "key-9"}])
def test_token_with_a_wrong_header_is_invalid(gateway: Gateway, services: FakeServices, header: dict[str, Any]) -> None:
    assert code_of(gateway, f"Bearer {services.token('alice', header=header)}") == "invalid_token"


def test_forged_tokens_are_invalid(gateway: Gateway, services: FakeServices) -> None:
    claims = jwt.decode(services.token("alice"), options={"verify_signature": False})
    header = {"kid": "key-1", "typ": "at+jwt"}
    public = base64.urlsafe_b64decode(services.jwk()["x"] + "=")
    unsigned = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": "none", **header}, claims)
    )
    head, body, signature = services.token("bob").split(".")
    other = services.token("alice").split(".")
    forged = [
        jwt.encode(claims, Ed25519PrivateKey.generate(), algorithm="EdDSA", headers=header),
        jwt.encode(claims, public, algorithm="HS256", headers=header),
        f"{unsigned}.",
        f"{head}.{other[1]}.{signature}",
        f"{head}.{body}",
        "not.a.token",
        "x",
    ]
    assert {code_of(gateway, f"Bearer {token}") for token in forged} == {"invalid_token"}


def test_ended_session_is_told_and_remembered(gateway: Gateway, services: FakeServices) -> None:
    services.sessions["ses_bob"] = {"active": False}
    assert [gateway.bob.get(MINE).get_json(force=True)["code"] for _ in range(3)] == ["session_over"] * 3
    assert len(services.calls_of("users", "introspect_session")) == 1


def test_state_of_a_session_is_asked_at_most_every_three_seconds(
    gateway: Gateway, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr("gateway.fresh_cache.time.monotonic", lambda: now)
    for _ in range(20):
        assert gateway.bob.get(MINE).status_code == 200
    assert len(services.calls_of("users", "introspect_session")) == 1

    services.sessions["ses_bob"] = {"active": False}
    now += 3.1
    assert gateway.bob.get(MINE).status_code == 401


def test_changed_role_holds_on_the_next_question(
    gateway: Gateway, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.answer("cards", "list_lamps", {"items": [], "next_cursor": None})
    now = time.monotonic()
    monkeypatch.setattr("gateway.fresh_cache.time.monotonic", lambda: now)
    assert gateway.bob.get("/api/v1/lamps").status_code == 200

    services.sessions["ses_bob"] |= {"permissions": {"cards": "none"}}
    now += 3.1
    assert gateway.bob.get("/api/v1/lamps").get_json(force=True)["missing"] == "cards:read"


def test_while_users_is_away_what_it_last_said_holds_for_a_minute(
    gateway: Gateway, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr("gateway.fresh_cache.time.monotonic", lambda: now)
    assert gateway.bob.get(MINE).status_code == 200

    services.answer("users", "introspect_session", errors.Unavailable())
    now += 30
    assert gateway.bob.get(MINE).status_code == 200
    assert gateway.charlie.get(MINE).status_code == 503
    now += 31
    assert gateway.bob.get(MINE).status_code == 503


def test_what_ends_by_itself_ends_though_users_is_away(
    gateway: Gateway, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_at = utc_now() + timedelta(seconds=60)
    services.sessions["ses_bob"] |= {"valid_until": rfc3339(ends_at)}
    assert gateway.bob.get(MINE).status_code == 200
    assert gateway.bob.get(MINE).status_code == 200
    assert len(services.calls_of("users", "introspect_session")) == 1

    services.answer("users", "introspect_session", errors.Unavailable())
    monkeypatch.setattr(authentication, "utc_now", lambda: ends_at)
    assert gateway.bob.get(MINE).status_code == 503

    services.answer("users", "introspect_session", lambda session_id: services.sessions[session_id])
    services.sessions["ses_bob"] |= {"valid_until": None, "permissions": {"cards": "none"}}
    assert gateway.bob.get("/api/v1/lamps").get_json(force=True)["missing"] == "cards:read"


def test_unknown_key_is_asked_for_but_not_at_each_request(
    gateway: Gateway, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(authentication.time, "monotonic", lambda: now)
    assert gateway.alice.get(MINE).status_code == 200
    now += 10
    rotated = gateway.client(f"Bearer {services.token('alice', header={'kid': 'key-2'})}")
    services.answer("users", "get_signing_keys", {"keys": [services.jwk("key-2"), services.jwk("key-1")]})
    assert rotated.get(MINE).status_code == 200
    for kid in ("key-3", "key-4", "key-5"):
        code_of(gateway, f"Bearer {services.token('alice', header={'kid': kid})}")
    assert len(services.calls_of("users", "get_signing_keys")) == 2


def test_api_key_is_introspected_by_the_hash_of_its_secret(gateway: Gateway, services: FakeServices) -> None:
    state = {
        "active": True,
        "actor_id": "key_1",
        "actor_name": "robot",
        "permissions": {"cards": "read"},
        "merchants": [AURORA],
        "must_change_password": False,
    }
    services.answer("users", "introspect_api_key", state)

    assert gateway.client(f"Bearer {API_KEY}").get(MINE).status_code == 200

    question = services.calls_of("users", "introspect_api_key")[0].arguments
    assert len(question["secret_hash"]) == 64
    assert "s" * 43 not in str(question)
    passport = services.calls_of("users", "show_my_lamp")[0].passport
    assert (passport.actor_type, passport.session_id) == ("api_key", "")


def test_unknown_api_key_is_invalid(gateway: Gateway, services: FakeServices) -> None:
    services.answer("users", "introspect_api_key", {"active": False})
    assert code_of(gateway, f"Bearer {API_KEY}") == "invalid_token"


def test_public_route_does_not_look_at_the_token(gateway: Gateway, services: FakeServices) -> None:
    services.answer("cards", "touch_lamp", {"id": "l1"})
    assert gateway.client("Bearer nonsense").post("/api/v1/lamps/public").status_code == 200
    assert services.calls_of("cards", "touch_lamp")[0].passport.actor_type == "anonymous"


def test_whoever_must_change_the_password_can_do_nothing_else(gateway: Gateway, services: FakeServices) -> None:
    services.sessions["ses_bob"]["must_change_password"] = True
    services.answer("users", "change_lamp_password", None)
    refused = gateway.bob.get(MINE)
    assert (refused.status_code, refused.get_json(force=True)["code"]) == (403, "password_change_required")
    assert gateway.bob.post("/api/v1/lamps/password").status_code == 204
