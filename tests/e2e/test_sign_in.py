"""Sign-in, sessions, users, roles and API keys, the whole way; what changes in users holds within five seconds."""

import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest
import requests
from jwt.algorithms import OKPAlgorithm

from tests.e2e.conftest import Api, Platform, eventually

HOLDS_SECONDS_MAX = 5
NEW_PASSWORD = "violet kettle harbour"


class Person:
    """A fresh user, and both halves of their latest tokens."""

    def __init__(self, platform: Platform, *, roles: list[str] | None = None, merchants: Any = "all") -> None:
        self.platform = platform
        self.username, self.password = f"user-{secrets.token_hex(4)}", secrets.token_urlsafe(16)
        body = {"username": self.username, "roles": roles or [], "merchants": merchants}
        made = platform.admin.post("/users", body)
        assert made.status_code == 201, made.text
        self.id: str = made.json()["id"]
        self.temporary_password: str = made.json()["temporary_password"]

    def log_in(self, password: str | None = None) -> requests.Response:
        body = {"username": self.username, "password": password or self.password}
        return self.platform.anonymous.post("/auth/login", body, key="")

    def tokens(self) -> dict[str, Any]:
        answer = self.log_in()
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    def settled(self) -> "Person":
        """Change the temporary password."""
        api = self.platform.anonymous.signed_in(self.username, self.temporary_password)
        body = {"current_password": self.temporary_password, "new_password": self.password}
        assert api.post("/auth/password", body).status_code == 204
        return self

    def api(self) -> Api:
        return self.with_token(self.tokens()["access_token"])

    def with_token(self, token: str) -> Api:
        return Api(self.platform.anonymous.url, token)


def holds_in_time(check: Callable[[], bool]) -> None:
    eventually(check, within_seconds=HOLDS_SECONDS_MAX)


def code_of(answer: requests.Response) -> str:
    return f"{answer.status_code} {answer.json()['code']}"


def test_a_token_proves_itself_by_the_published_keys(platform: Platform) -> None:
    tokens = Person(platform).settled().tokens()
    root = requests.get(f"{platform.anonymous.url}/.well-known/jwks.json", timeout=10).json()
    assert platform.anonymous.get("/.well-known/jwks.json").json() == root
    header = jwt.get_unverified_header(tokens["access_token"])
    key = next(k for k in root["keys"] if k["kid"] == header["kid"])
    claims = jwt.decode(
        tokens["access_token"], OKPAlgorithm.from_jwk(key), algorithms=["EdDSA"], audience="countinghouse-api"
    )
    assert claims["exp"] - claims["iat"] == tokens["expires_in"] <= 600
    assert (tokens["token_type"], header["typ"]) == ("Bearer", "at+jwt")


def test_who_must_change_the_password_can_do_nothing_else_first(platform: Platform) -> None:
    person = Person(platform, roles=["operator"])
    first = person.log_in(person.temporary_password).json()
    assert first["must_change_password"]
    api = person.with_token(first["access_token"])
    for answer in (api.get("/me"), api.get("/cards"), api.get("/users"), api.post("/auth/logout")):
        assert code_of(answer) == "403 password_change_required"
    weak = api.post("/auth/password", {"current_password": person.temporary_password, "new_password": "password1234"})
    assert code_of(weak) == "422 weak_password"
    assert "new_password" in weak.json()["errors"]
    wrong = api.post("/auth/password", {"current_password": "wrong", "new_password": NEW_PASSWORD})
    assert code_of(wrong) == "422 wrong_password"
    body = {"current_password": person.temporary_password, "new_password": NEW_PASSWORD}
    assert api.post("/auth/password", body).status_code == 204
    me = api.get("/me").json()  # with the same token, and on the very next request
    assert (me["username"], me["must_change_password"]) == (person.username, False)
    assert (me["permissions"]["cards"], me["merchants"]) == ("operate", "all")
    assert code_of(person.log_in(person.temporary_password)) == "401 invalid_credentials"


def test_wrong_name_wrong_password_and_disabled_user_look_alike(platform: Platform) -> None:
    person, gone = Person(platform).settled(), Person(platform).settled()
    platform.admin.post(f"/users/{gone.id}/disable", {"reason": "left"})
    answers = [
        platform.anonymous.post("/auth/login", {"username": f"nobody-{secrets.token_hex(4)}", "password": "x"}, key=""),
        person.log_in("wrong"),
        gone.log_in(),
    ]
    assert {code_of(a) for a in answers} == {"401 invalid_credentials"}
    assert len({str({k: v for k, v in a.json().items() if k != "request_id"}) for a in answers}) == 1


def test_a_crowd_at_the_door_is_let_in(platform: Platform) -> None:
    people = [Person(platform).settled() for _ in range(2)]
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda i: people[i % 2].log_in(), range(24)))
    assert {a.status_code for a in answers} == {200}


def test_too_many_failures_lock_this_name_and_no_other(platform: Platform) -> None:
    person, other = Person(platform).settled(), Person(platform).settled()
    answers = [person.log_in("wrong") for _ in range(10)]
    assert [a.status_code for a in answers] == [401] * 8 + [429] * 2
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 16
    assert code_of(person.log_in()) == "429 too_many_sign_ins"
    assert other.log_in().status_code == 200
    platform.system.restart("users")
    platform.system.wait_ready()
    assert person.log_in().status_code == 429  # who restarts forgets nothing
    eventually(lambda: person.log_in().status_code == 200, within_seconds=20)


def test_a_refresh_token_is_spent_once_and_its_reuse_ends_the_session(platform: Platform) -> None:
    person = Person(platform).settled()
    first, elsewhere = person.tokens(), person.api()

    def refresh(tokens: dict[str, Any]) -> requests.Response:
        return platform.anonymous.post("/auth/refresh", {"refresh_token": tokens["refresh_token"]}, key="")

    second = refresh(first).json()
    assert second["refresh_token"] != first["refresh_token"]
    api = person.with_token(second["access_token"])
    assert api.get("/me").status_code == 200
    assert code_of(refresh(first)) == "401 invalid_refresh_token"
    assert code_of(refresh(second)) == "401 invalid_refresh_token"
    holds_in_time(lambda: api.get("/me").status_code == 401)
    assert elsewhere.get("/me").status_code == 200


def test_one_refresh_token_shown_by_ten_at_once_gives_one_pair(platform: Platform) -> None:
    tokens = Person(platform).settled().tokens()
    body = {"refresh_token": tokens["refresh_token"]}
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: platform.anonymous.post("/auth/refresh", body, key=""), range(10)))
    assert sorted(a.status_code for a in answers) == [200] + [401] * 9


def test_logout_ends_this_session_and_with_all_every_one(platform: Platform) -> None:
    person = Person(platform).settled()
    here, there = person.api(), person.api()
    assert here.post("/auth/logout").status_code == 204
    assert code_of(here.get("/me")) == "401 session_over"
    assert there.get("/me").status_code == 200
    third = person.api()
    url = f"{third.url}/api/v1/auth/logout?all=true"
    assert third.http.post(url, timeout=10).status_code == 204
    for api in (third, there):
        holds_in_time(lambda api=api: api.get("/me").status_code == 401)  # type: ignore[misc]


def test_what_changes_holds_for_tokens_already_issued(platform: Platform) -> None:
    merchant, other = platform.merchant(), platform.merchant()
    name = f"role-{secrets.token_hex(4)}"
    permissions = {"merchants": "read", "cards": "read"}
    assert platform.admin.post("/roles", {"name": name, "permissions": permissions}).status_code == 201
    person = Person(platform, roles=[name], merchants=[merchant]).settled()
    api = person.api()
    assert [m["id"] for m in api.get("/merchants").json()["items"]] == [merchant]
    assert code_of(api.get(f"/merchants/{other}")) == "404 merchant_not_found"

    platform.admin.patch(f"/users/{person.id}", {"merchants": [merchant, other]})
    holds_in_time(lambda: api.get(f"/merchants/{other}").status_code == 200)

    platform.admin.patch(f"/roles/{name}", {"permissions": {"merchants": "read"}})
    holds_in_time(lambda: api.get("/cards").status_code == 403)
    refusal = api.get("/cards").json()
    assert (refusal["code"], refusal["missing"]) == ("permission_denied", "cards:read")

    platform.admin.patch(f"/users/{person.id}", {"roles": []})
    holds_in_time(lambda: api.get("/merchants").status_code == 403)

    reset = platform.admin.post(f"/users/{person.id}/reset-password")
    assert reset.json()["temporary_password"]
    holds_in_time(lambda: api.get("/me").status_code == 401)
    assert code_of(person.log_in()) == "401 invalid_credentials"

    person.temporary_password = reset.json()["temporary_password"]
    again = person.settled().api()
    assert code_of(platform.admin.post(f"/users/{person.id}/disable", {})).startswith("422")
    assert platform.admin.post(f"/users/{person.id}/disable", {"reason": "left"}).json()["status"] == "disabled"
    holds_in_time(lambda: again.get("/me").status_code == 401)
    assert platform.admin.post(f"/users/{person.id}/enable").json()["status"] == "active"
    assert again.get("/me").status_code == 401
    assert person.log_in().status_code == 200


def test_nobody_grants_more_than_they_hold(platform: Platform) -> None:
    merchant, other = platform.merchant(), platform.merchant()
    name = f"clerk-{secrets.token_hex(4)}"
    platform.admin.post("/roles", {"name": name, "permissions": {"users": "admin", "cards": "read"}})
    clerk = Person(platform, roles=[name], merchants=[merchant]).settled().api()
    fresh = f"user-{secrets.token_hex(4)}"
    beyond: list[tuple[str, dict[str, Any]]] = [
        ("/users", {"username": fresh, "roles": ["administrator"], "merchants": [merchant]}),
        ("/users", {"username": fresh, "roles": [name], "merchants": [other]}),
        ("/users", {"username": fresh, "roles": [name], "merchants": "all"}),
        ("/roles", {"name": f"boss-{fresh}", "permissions": {"cards": "operate"}}),
        ("/api-keys", {"name": "k", "roles": ["operator"], "merchants": [merchant]}),
        ("/api-keys", {"name": "k", "roles": [name], "merchants": "all"}),
    ]
    for path, body in beyond:
        assert code_of(clerk.post(path, body)) == "403 grant_exceeds_own", (path, body)
    assert clerk.post("/users", {"username": fresh, "roles": [name], "merchants": [merchant]}).status_code == 201
    listed = {u["username"] for u in clerk.get("/users").json()["items"]}
    assert fresh in listed
    assert "admin" not in listed  # who sees all merchants is not this clerk's to see


def test_the_last_administrator_and_the_built_in_roles_stay(platform: Platform) -> None:
    me = platform.admin.get("/me").json()
    administrators = platform.admin.get("/users", role="administrator", status="active").json()["items"]
    for user in administrators:  # the demonstration has a second one
        if user["merchants"] == "all" and user["id"] != me["id"]:
            assert platform.admin.post(f"/users/{user['id']}/disable", {"reason": "one stays"}).status_code == 200
    for answer in (
        platform.admin.post(f"/users/{me['id']}/disable", {"reason": "x"}),
        platform.admin.patch(f"/users/{me['id']}", {"roles": ["operator"]}),
    ):
        assert code_of(answer) == "409 last_administrator"
    for role in ("administrator", "operator", "auditor"):
        answer = platform.admin.http.delete(f"{platform.admin.url}/api/v1/roles/{role}", timeout=10)
        assert code_of(answer) == "409 role_built_in"


def test_a_program_works_with_its_key_until_it_is_revoked(platform: Platform) -> None:
    merchant = platform.merchant()
    body = {"name": "importer", "roles": ["operator"], "merchants": [merchant]}
    made = platform.admin.post("/api-keys", body).json()
    program = Api(platform.anonymous.url, made["secret"])
    me = program.get("/me").json()
    assert (me["type"], me["id"], me["merchants"]) == ("api_key", made["id"], [merchant])
    assert [m["id"] for m in program.get("/merchants").json()["items"]] == [merchant]
    assert code_of(program.get("/api-keys")) == "403 permission_denied"
    assert code_of(program.post("/auth/logout")) == "403 user_session_required"
    assert "secret" not in platform.admin.get("/api-keys").json()["items"][0]
    assert Api(platform.anonymous.url, made["secret"][:-1] + "~").get("/me").status_code == 401
    url = f"{platform.admin.url}/api/v1/api-keys/{made['id']}"
    assert platform.admin.http.delete(url, timeout=10).status_code == 204
    holds_in_time(lambda: program.get("/me").status_code == 401)


def test_sessions_are_listed_and_ended_by_oneself_and_by_an_administrator(platform: Platform) -> None:
    person = Person(platform).settled()
    here, there = person.api(), person.tokens()
    there_api = person.with_token(there["access_token"])
    (there_id,) = (s["id"] for s in there_api.get("/me/sessions").json()["items"] if s["is_current"])
    (here_id,) = (s["id"] for s in here.get("/me/sessions").json()["items"] if s["is_current"])
    stranger = Person(platform).settled().api()

    def end(api: Api, path: str) -> requests.Response:
        return api.http.delete(f"{api.url}/api/v1{path}", timeout=10)

    assert code_of(end(stranger, f"/me/sessions/{there_id}")) == "404 session_not_found"
    assert code_of(end(here, f"/users/{person.id}/sessions/{there_id}")) == "403 permission_denied"
    assert there_api.get("/me").status_code == 200

    assert end(here, f"/me/sessions/{there_id}").status_code == 204
    holds_in_time(lambda: there_api.get("/me").status_code == 401)
    spent = platform.anonymous.post("/auth/refresh", {"refresh_token": there["refresh_token"]}, key="")
    assert code_of(spent) == "401 invalid_refresh_token"

    listed = [s["id"] for s in platform.admin.get(f"/users/{person.id}/sessions").json()["items"]]
    assert here_id in listed
    assert there_id not in listed
    assert end(platform.admin, f"/users/{person.id}/sessions/{here_id}").status_code == 204
    holds_in_time(lambda: here.get("/me").status_code == 401)
    assert person.log_in().status_code == 200


def test_what_somebody_can_see_and_who_can_do_something_are_told(platform: Platform) -> None:
    merchant, other = platform.merchant(), platform.merchant()
    person = Person(platform, roles=["operator"], merchants=[merchant])
    access = platform.admin.get(f"/users/{person.id}/access").json()
    assert (access["permissions"]["cards"], access["merchants"]) == ("operate", [merchant])
    assert [r["name"] for r in access["roles"]] == ["operator"]

    def holders(permission: str, merchant_id: str) -> list[str]:
        answer = platform.admin.get("/permissions/holders", permission=permission, merchant_id=merchant_id, limit=500)
        return [h["id"] for h in answer.json()["items"]]

    assert person.id in holders("cards:operate", merchant)
    assert person.id not in holders("cards:operate", other)
    assert person.id not in holders("cards:admin", merchant)
    platform.admin.post(f"/users/{person.id}/disable", {"reason": "left"})
    assert person.id not in holders("cards:operate", merchant)
    assert code_of(platform.admin.get("/permissions/holders", permission="cards:write")) == "422 invalid_request"


def test_an_answer_with_a_secret_is_not_given_twice(platform: Platform) -> None:
    key, username = secrets.token_hex(8), f"user-{secrets.token_hex(4)}"
    first = platform.admin.post("/users", {"username": username}, key=key)
    assert first.status_code == 201
    again = platform.admin.post("/users", {"username": username}, key=key)
    assert code_of(again) == "409 idempotency_answer_not_kept"
    assert code_of(platform.admin.post("/users", {"username": username})) == "409 username_taken"
    assert len(platform.admin.get("/users", q=username).json()["items"]) == 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/users", {"username": "a b"}),
        ("POST", "/users", {"username": "ok\n"}),
        ("POST", "/users", {"username": "ok", "merchants": "some"}),
        ("POST", "/users", {"username": "ok", "roles": ["no-such-role"]}),
        ("POST", "/users", {"username": "ok", "merchants": ["mer_nowhere"]}),
        ("POST", "/users", {"username": "ok", "password": "given by hand"}),
        ("PATCH", "/users/usr_x", {"status": "disabled"}),
        ("POST", "/roles", {"name": "r", "permissions": {"kitchen": "read"}}),
        ("POST", "/roles", {"name": "r", "permissions": {"cards": "write"}}),
        ("POST", "/merchants", {"code": "", "name": "x"}),
        ("POST", "/api-keys", {"name": "k", "roles": [], "merchants": [], "expires_at": "2020-01-01T00:00:00Z"}),
        ("POST", "/auth/login", {"username": "x"}),
        ("POST", "/auth/login", {"username": "x", "password": "y", "colour": "red"}),
    ],
)
def test_a_wrong_body_is_a_422(platform: Platform, method: str, path: str, body: dict[str, Any]) -> None:
    answer = platform.admin.http.request(method, f"{platform.admin.url}/api/v1{path}", json=body, timeout=10)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"]


def test_who_did_what_to_whom_is_in_the_log_and_no_secret_anywhere(platform: Platform) -> None:
    person = Person(platform, roles=["auditor"]).settled()
    tokens = person.tokens()
    person.log_in("a wrong password that nobody may read")
    platform.admin.patch(f"/users/{person.id}", {"display_name": "Somebody else"})
    platform.admin.post(f"/users/{person.id}/disable", {"reason": "the reason why"})

    def actions() -> set[str]:
        rows = platform.admin.get("/logs", resource_type="user", resource_id=person.id, limit=100).json()["items"]
        return {row["action"] for row in rows}

    wanted = {"users.create_user", "users.change_password", "users.sign_in", "users.update_user", "users.disable_user"}
    eventually(lambda: actions() >= wanted)
    rows = platform.admin.get("/logs", resource_type="user", resource_id=person.id, limit=100).json()["items"]
    update = next(r for r in rows if r["action"] == "users.update_user" and r.get("changes"))
    assert update["changes"]["display_name"] == {"before": person.username, "after": "Somebody else"}
    assert "the reason why" in str(rows)

    time.sleep(1)
    secrets_ = [person.password, person.temporary_password, tokens["access_token"], tokens["refresh_token"]]
    secrets_.append("a wrong password that nobody may read")
    everything = platform.admin.get("/logs", limit=500).text
    for folder in ("logs", "spool"):
        for file in (platform.system.home.path / folder).rglob("*"):
            if file.is_file():
                everything += file.read_text(errors="replace")
    assert person.username in everything
    assert [s for s in secrets_ if s in everything] == []
