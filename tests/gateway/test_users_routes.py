"""The routes of sign-in, users, roles, merchants and API keys: who may, what reaches the service, what is shown."""

import threading
import time
from typing import Any

import pytest

from gateway.api import auth
from shared.contracts.users import InvalidOtp, OtpRequired, SessionOver
from tests.gateway.conftest import Gateway
from tests.gateway.people import FakeServices

NOW = "2026-11-24T08:00:00Z"
USER = {
    "id": "usr_1",
    "username": "dora",
    "display_name": "Dora",
    "email": None,
    "roles": ["operator"],
    "merchants": "all",
    "grants": [],
    "status": "active",
    "must_change_password": False,
    "password_expires_at": None,
    "has_totp": False,
    "last_signed_in_at": None,
    "created_at": NOW,
    "updated_at": NOW,
}
ROLE = {
    "name": "teller",
    "description": "",
    "permissions": {"ledger": "read"},
    "is_built_in": False,
    "created_at": NOW,
    "updated_at": NOW,
}
MERCHANT = {"id": "mer_1", "code": "A", "name": "A", "status": "active", "created_at": NOW, "updated_at": NOW}
KEY = {
    "id": "key_1",
    "name": "k",
    "roles": [],
    "merchants": [],
    "status": "active",
    "expires_at": None,
    "created_at": NOW,
    "created_by": "usr_alice",
    "revoked_at": None,
}
PAIR = {
    "access_token": "a",
    "refresh_token": "r",
    "token_type": "Bearer",
    "expires_in": 600,
    "must_change_password": False,
}
ACCESS = {
    "user_id": "usr_1",
    "username": "dora",
    "status": "active",
    "permissions": {"ledger": "read"},
    "merchants": "all",
    "roles": [ROLE],
    "grants": [],
}
LEAST_PRIVILEGE = {
    "user_id": "usr_1",
    "username": "dora",
    "status": "active",
    "roles": ["operator"],
    "since": NOW,
    "modules": [{"module": "cards", "granted": "operate", "used": "read", "uses": 3, "last_used_at": NOW}],
    "excess": ["cards:operate"],
    "least": {"cards": "read"},
    "least_roles": None,
}
ENROLMENT = {"otpauth_uri": "otpauth://totp/x", "secret": "ABCD", "recovery_codes": ["aaaa-bbbb"]}
EVERYBODY = {"alice", "bob", "dora"}
REASON = {"reason": "because"}
LIST = {"items": [], "next_cursor": None}

ROUTES: list[tuple[str, str, Any, str, Any, set[str]]] = [
    ("GET", "/users", None, "list_users", LIST, {"alice", "bob", "dora"}),
    ("POST", "/users", {"username": "dora"}, "create_user", USER, {"alice"}),
    ("GET", "/users/usr_1", None, "get_user", USER, {"alice", "bob", "dora"}),
    ("PATCH", "/users/usr_1", {"email": None}, "update_user", USER, {"alice"}),
    ("POST", "/users/usr_1/disable", REASON, "disable_user", USER, {"alice"}),
    ("POST", "/users/usr_1/enable", None, "enable_user", USER, {"alice"}),
    ("POST", "/users/usr_1/reset-password", None, "reset_password", USER, {"alice"}),
    ("POST", "/users/usr_1/reset-totp", REASON, "reset_totp", USER, {"alice"}),
    ("POST", "/auth/totp", None, "begin_totp", ENROLMENT, EVERYBODY),
    ("POST", "/auth/totp/confirm", {"otp": "123456"}, "confirm_totp", None, EVERYBODY),
    ("DELETE", "/auth/totp", {"password": "x"}, "remove_totp", None, EVERYBODY),
    ("GET", "/users/least-privilege", None, "list_least_privilege", LIST, EVERYBODY),
    ("GET", "/users/usr_1/least-privilege", None, "get_least_privilege", LEAST_PRIVILEGE, EVERYBODY),
    ("POST", "/users/usr_1/shrink", REASON, "shrink_user", USER, {"alice"}),
    ("GET", "/users/usr_1/access", None, "get_user_access", ACCESS, {"alice", "bob", "dora"}),
    ("GET", "/permissions/holders?permission=cards:read", None, "list_permission_holders", LIST, EVERYBODY),
    ("GET", "/users/usr_1/sessions", None, "list_user_sessions", LIST, {"alice"}),
    ("DELETE", "/users/usr_1/sessions/ses_1", None, "end_user_session", None, {"alice"}),
    ("GET", "/roles", None, "list_roles", LIST, {"alice", "bob", "dora"}),
    ("POST", "/roles", {"name": "r", "permissions": {}}, "create_role", ROLE, {"alice"}),
    ("GET", "/roles/teller", None, "get_role", ROLE, {"alice", "bob", "dora"}),
    ("PATCH", "/roles/teller", {"description": "x"}, "update_role", ROLE, {"alice"}),
    ("DELETE", "/roles/teller", None, "delete_role", None, {"alice"}),
    ("GET", "/merchants", None, "list_merchants", LIST, {"alice", "bob", "dora"}),
    ("POST", "/merchants", {"code": "A", "name": "A"}, "create_merchant", MERCHANT, {"alice", "bob"}),
    ("GET", "/merchants/mer_1", None, "get_merchant", MERCHANT, {"alice", "bob", "dora"}),
    ("PATCH", "/merchants/mer_1", {"name": "B"}, "update_merchant", MERCHANT, {"alice", "bob"}),
    ("GET", "/api-keys", None, "list_api_keys", LIST, {"alice"}),
    ("POST", "/api-keys", {"name": "k", "roles": [], "merchants": []}, "create_api_key", KEY, {"alice"}),
    ("DELETE", "/api-keys/key_1", None, "revoke_api_key", None, {"alice"}),
    ("GET", "/me", None, "get_me", USER | {"recovery_codes_left": 0}, {"alice", "bob", "dora"}),
    ("GET", "/me/sessions", None, "list_my_sessions", LIST, {"alice", "bob", "dora"}),
    ("DELETE", "/me/sessions/ses_1", None, "end_my_session", None, {"alice", "bob", "dora"}),
]


@pytest.mark.parametrize(("method", "path", "body", "rpc", "answer", "allowed"), ROUTES)
def test_each_route_is_for_whom_it_says(
    gateway: Gateway,
    services: FakeServices,
    method: str,
    path: str,
    body: Any,
    rpc: str,
    answer: Any,
    allowed: set[str],
) -> None:
    services.answer("users", rpc, answer)
    for person in ("alice", "bob", "dora"):
        response = gateway.signed_in(person).open(f"/api/v1{path}", method=method, json=body)
        assert (response.status_code < 300) is (person in allowed), (person, response.text)
    assert len(services.calls_of("users", rpc)) == len(allowed)
    assert gateway.nobody.open(f"/api/v1{path}", method=method, json=body).status_code == 401


def test_each_filter_of_users_reaches_the_service(gateway: Gateway, services: FakeServices) -> None:
    services.answer("users", "list_users", {"items": [USER], "next_cursor": None})
    filters = {"q": "do", "status": "active", "role": "operator", "merchant_id": "mer_1"}
    assert gateway.alice.get("/api/v1/users", query_string=filters).json["items"] == [USER]
    [call] = services.calls_of("users", "list_users")
    assert call.arguments == filters | {"limit": 50, "cursor": None}


def test_only_named_fields_are_changed(gateway: Gateway, services: FakeServices) -> None:
    services.answer("users", "update_user", USER)
    gateway.alice.patch("/api/v1/users/usr_1", json={"email": None, "merchants": ["mer_1"]})
    [call] = services.calls_of("users", "update_user")
    assert call.arguments == {"user_id": "usr_1", "changes": {"email": None, "merchants": ["mer_1"]}}


def test_one_time_secrets_are_shown_and_hashes_never(gateway: Gateway, services: FakeServices) -> None:
    services.answer("users", "create_user", USER | {"temporary_password": "t", "password_hash": "h"})
    services.answer("users", "create_api_key", KEY | {"secret": "s", "secret_hash": "h"})
    user = gateway.alice.post("/api/v1/users", json={"username": "dora"}).json
    key = gateway.alice.post("/api/v1/api-keys", json={"name": "k", "roles": [], "merchants": "all"}).json
    assert (user, key) == (USER | {"temporary_password": "t"}, KEY | {"secret": "s"})


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/users", {"username": "a b"}, "username"),
        ("/users", {"username": "a\n"}, "username"),
        ("/users", {"username": "a" * 65}, "username"),
        ("/users", {"username": "a", "email": "nowhere"}, "email"),
        ("/users", {"username": "a", "merchants": "mer_1"}, "merchants"),
        ("/users", {"username": "a", "merchants": [1]}, "merchants"),
        ("/users", {"username": "a", "status": "active"}, "status"),
        ("/users/usr_1/disable", {}, "reason"),
        ("/users/usr_1/disable", {"reason": "  "}, "reason"),
        ("/users/usr_1/disable", {"reason": "x" * 501}, "reason"),
        ("/roles", {"name": "r"}, "permissions"),
        ("/roles", {"name": "r/s", "permissions": {}}, "name"),
        ("/merchants", {"code": "a b", "name": "x"}, "code"),
        ("/merchants", {"code": "a", "name": "x", "status": "gone"}, "status"),
        ("/api-keys", {"name": "k", "roles": []}, "merchants"),
        ("/api-keys", {"name": "k", "roles": [], "merchants": [], "expires_at": "tomorrow"}, "expires_at"),
    ],
)
def test_a_wrong_body_is_refused_by_field(gateway: Gateway, path: str, body: dict[str, Any], field: str) -> None:
    response = gateway.alice.post(f"/api/v1{path}", json=body)
    assert response.status_code == 422
    assert field in response.json["errors"]


class TestSignIn:
    BODY = {"username": "dora", "password": "violet kettle harbour"}

    def test_a_code_reaches_the_service_where_one_is_given(self, gateway: Gateway, services: FakeServices) -> None:
        services.answer("users", "sign_in", PAIR)
        for otp in ({}, {"otp": "123456"}, {"otp": None}):
            response = gateway.nobody.post("/api/v1/auth/login", json=self.BODY | otp)
            assert response.status_code == 200
            assert services.calls_of("users", "sign_in")[-1].arguments == self.BODY | otp

    def test_a_lacking_code_and_a_wrong_one_are_told_apart(self, gateway: Gateway, services: FakeServices) -> None:
        for refusal, code in ((OtpRequired(), "otp_required"), (InvalidOtp(), "invalid_otp")):
            services.answer("users", "sign_in", refusal)
            response = gateway.nobody.post("/api/v1/auth/login", json=self.BODY)
            assert (response.status_code, response.get_json(force=True)["code"]) == (401, code)

    def test_the_service_hears_from_where(self, gateway: Gateway, services: FakeServices) -> None:
        services.answer("users", "sign_in", PAIR)
        gateway.nobody.post("/api/v1/auth/login", json=self.BODY, environ_base={"REMOTE_ADDR": "203.0.113.9"})
        [call] = services.calls_of("users", "sign_in")
        assert (call.passport.ip, call.passport.permissions) == ("203.0.113.9", {})

    def test_a_crowd_waits_in_the_gateway_and_not_in_the_service(
        self, gateway: Gateway, services: FakeServices
    ) -> None:
        at_once, most = 0, 0
        lock = threading.Lock()

        def sign_in(**_: Any) -> dict[str, Any]:
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            time.sleep(0.02)
            with lock:
                at_once -= 1
            return PAIR

        services.answer("users", "sign_in", sign_in)
        statuses: list[int] = []

        def knock() -> None:
            statuses.append(gateway.client().post("/api/v1/auth/login", json=self.BODY).status_code)

        threads = [threading.Thread(target=knock) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 40
        assert 2 <= most <= auth.AT_ONCE_MAX

    def test_keys_are_published_at_both_places(self, gateway: Gateway, services: FakeServices) -> None:
        for path in ("/.well-known/jwks.json", "/api/v1/.well-known/jwks.json"):
            assert gateway.nobody.get(path).json == {"keys": [services.jwk()]}


class TestWhatHoldsAtOnce:
    """The gateway asks for a session's state every few seconds, but at once after it has changed something itself."""

    def asked(self, services: FakeServices) -> int:
        return len(services.calls_of("users", "introspect_session"))

    @pytest.mark.parametrize(
        ("method", "path", "body", "rpc"),
        [
            ("PATCH", "/users/usr_1", {"roles": []}, "update_user"),
            ("POST", "/users/usr_1/disable", REASON, "disable_user"),
            ("POST", "/users/usr_1/reset-password", None, "reset_password"),
            ("PATCH", "/roles/teller", {"permissions": {}}, "update_role"),
            ("DELETE", "/api-keys/key_1", None, "revoke_api_key"),
            ("POST", "/auth/logout", None, "end_session"),
            ("DELETE", "/me/sessions/ses_9", None, "end_my_session"),
            ("DELETE", "/users/usr_1/sessions/ses_9", None, "end_user_session"),
        ],
    )
    def test_the_next_request_of_everyone_asks_again(
        self, gateway: Gateway, services: FakeServices, method: str, path: str, body: Any, rpc: str
    ) -> None:
        services.answer("users", rpc, USER | ROLE)
        services.answer("users", "get_me", USER)
        for _ in range(3):
            gateway.bob.get("/api/v1/me")
        assert self.asked(services) == 1
        assert gateway.alice.open(f"/api/v1{path}", method=method, json=body).status_code < 300
        before = self.asked(services)
        services.sessions["ses_bob"] = {"active": False}
        response = gateway.bob.get("/api/v1/me")
        assert (response.status_code, response.json["code"]) == (401, SessionOver.code)
        assert self.asked(services) == before + 1

    def test_what_was_known_still_stands_by_while_users_is_away(self, gateway: Gateway, services: FakeServices) -> None:
        from shared.errors import Unavailable

        services.answer("users", "end_session", None)
        services.answer("cards", "list_cards", LIST)
        gateway.bob.get("/api/v1/cards")
        gateway.alice.post("/api/v1/auth/logout")
        services.answer("users", "introspect_session", Unavailable())
        assert gateway.bob.get("/api/v1/cards").status_code == 200

    def test_who_must_change_the_password_is_let_in_right_after(self, gateway: Gateway, services: FakeServices) -> None:
        """Also when another gateway process took the change, so nothing is remembered of such a session."""
        services.answer("users", "get_me", USER)
        services.sessions["ses_bob"]["must_change_password"] = True
        assert gateway.bob.get("/api/v1/me").json["code"] == "password_change_required"
        services.sessions["ses_bob"]["must_change_password"] = False
        assert gateway.bob.get("/api/v1/me").status_code == 200


def test_holders_are_asked_for_by_permission_and_merchant(gateway: Gateway, services: FakeServices) -> None:
    services.answer("users", "list_permission_holders", LIST)
    assert gateway.bob.get("/api/v1/permissions/holders").status_code == 422
    assert not services.calls_of("users", "list_permission_holders")
    assert gateway.bob.get("/api/v1/permissions/holders?permission=cards:operate&merchant_id=mer_1").status_code == 200
    arguments = services.calls_of("users", "list_permission_holders")[0].arguments
    assert (arguments["permission"], arguments["merchant_id"]) == ("cards:operate", "mer_1")


def test_a_session_is_named_to_the_service_and_shown_without_more(gateway: Gateway, services: FakeServices) -> None:
    shown = {"id": "ses_1", "ip": "203.0.113.7", "user_agent": "x", "is_current": True}
    shown |= {"created_at": NOW, "last_used_at": NOW, "expires_at": NOW}
    services.answer("users", "list_user_sessions", {"items": [shown | {"address": "a"}], "next_cursor": None})
    services.answer("users", "end_user_session", None)

    assert gateway.alice.get("/api/v1/users/usr_1/sessions?limit=7").json["items"] == [shown]
    assert gateway.alice.delete("/api/v1/users/usr_1/sessions/ses_1").status_code == 204

    assert services.calls_of("users", "list_user_sessions")[0].arguments["user_id"] == "usr_1"
    assert services.calls_of("users", "list_user_sessions")[0].arguments["limit"] == 7
    assert services.calls_of("users", "end_user_session")[0].arguments == {"user_id": "usr_1", "session_id": "ses_1"}


def test_changing_the_password_is_open_to_who_must(gateway: Gateway, services: FakeServices) -> None:
    services.answer("users", "change_password", None)
    services.sessions["ses_bob"]["must_change_password"] = True
    body = {"current_password": "x", "new_password": "violet kettle harbour"}
    assert gateway.bob.post("/api/v1/auth/password", json=body).status_code == 204
    [call] = services.calls_of("users", "change_password")
    assert (call.arguments, call.passport.session_id) == (body, "ses_bob")
    assert gateway.bob.post("/api/v1/auth/logout").status_code == 403


@pytest.mark.parametrize(("query", "everywhere"), [("", False), ("?all=false", False), ("?all=true", True)])
def test_logout_ends_one_session_or_all(gateway: Gateway, services: FakeServices, query: str, everywhere: bool) -> None:
    services.answer("users", "end_session", None)
    assert gateway.bob.post(f"/api/v1/auth/logout{query}").status_code == 204
    assert services.calls_of("users", "end_session")[0].arguments == {"everywhere": everywhere}
