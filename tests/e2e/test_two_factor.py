"""Two-factor sign-in the whole way: set up, used, lost and reset."""

import secrets
import time
from typing import Any

import pyotp
import requests

from tests.e2e.conftest import Platform, eventually


class Owner:
    """A user with a password of their own, and the authenticator that they set up."""

    def __init__(self, platform: Platform) -> None:
        self.anonymous = platform.anonymous
        self.username, self.password = f"user-{secrets.token_hex(4)}", secrets.token_urlsafe(16)
        made = platform.admin.post("/users", {"username": self.username, "roles": ["operator"], "merchants": "all"})
        self.id: str = made.json()["id"]
        body = {"current_password": made.json()["temporary_password"], "new_password": self.password}
        first = platform.anonymous.signed_in(self.username, made.json()["temporary_password"])
        assert first.post("/auth/password", body).status_code == 204
        self.api = platform.anonymous.signed_in(self.username, self.password)

    def set_up(self) -> dict[str, Any]:
        answer = self.api.post("/auth/totp")
        assert answer.status_code == 200, answer.text
        enrolment: dict[str, Any] = answer.json()
        self.totp = pyotp.parse_uri(enrolment["otpauth_uri"])
        confirmed = self.api.post("/auth/totp/confirm", {"otp": self.totp.at(time.time() - 30)})
        assert confirmed.status_code == 204, confirmed.text
        return enrolment

    def log_in(self, **otp: str) -> requests.Response:
        body = {"username": self.username, "password": self.password, **otp}
        return self.anonymous.post("/auth/login", body, key="")


def code_of(answer: requests.Response) -> str:
    return f"{answer.status_code} {answer.json()['code']}"


def test_second_factor_from_setting_up_to_taking_it_away(platform: Platform) -> None:
    owner = Owner(platform)
    codes = owner.set_up()["recovery_codes"]
    me = owner.api.get("/me").json()
    assert (me["has_totp"], me["recovery_codes_left"]) == (True, len(codes))
    assert code_of(owner.log_in()) == "401 otp_required"
    assert code_of(owner.log_in(otp="000000")) == "401 invalid_otp"
    otp = owner.totp.now()
    assert owner.log_in(otp=otp).status_code == 200
    assert code_of(owner.log_in(otp=otp)) == "401 invalid_otp"
    assert owner.log_in(otp=codes[0]).status_code == 200
    assert code_of(owner.log_in(otp=codes[0])) == "401 invalid_otp"
    assert owner.api.get("/me").json()["recovery_codes_left"] == len(codes) - 1
    wrong = owner.api.http.delete(f"{owner.api.url}/api/v1/auth/totp", json={"password": "wrong"}, timeout=30)
    assert code_of(wrong) == "422 wrong_password"
    gone = owner.api.http.delete(f"{owner.api.url}/api/v1/auth/totp", json={"password": owner.password}, timeout=30)
    assert gone.status_code == 204
    assert owner.log_in().status_code == 200


def test_lost_authenticator_is_reset_by_an_administrator_with_a_reason(platform: Platform) -> None:
    owner = Owner(platform)
    owner.set_up()
    assert platform.admin.post(f"/users/{owner.id}/reset-totp").status_code == 422
    clerk = platform.person(roles=["operator"], merchants="all")
    assert clerk.post(f"/users/{owner.id}/reset-totp", {"reason": "please"}).status_code == 403
    answer = platform.admin.post(f"/users/{owner.id}/reset-totp", {"reason": "the phone is lost"})
    assert (answer.status_code, answer.json()["has_totp"]) == (200, False)
    assert owner.log_in().status_code == 200

    def rows() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = platform.admin.get("/logs", resource_id=owner.id, limit=100).json()["items"]
        return [row for row in found if (row["action"], row["log_type"]) == ("users.reset_totp", "operation")]

    [row] = eventually(rows)
    assert row["reason"] == "the phone is lost"


def test_an_answer_with_secrets_is_not_kept_under_its_key(platform: Platform) -> None:
    owner, key = Owner(platform), secrets.token_hex(16)
    first = owner.api.post("/auth/totp", key=key)
    assert first.status_code == 200
    again = owner.api.post("/auth/totp", key=key)
    assert code_of(again) == "409 idempotency_answer_not_kept"
    assert first.json()["secret"] not in again.text


def test_neither_secret_nor_codes_reach_the_log(platform: Platform) -> None:
    owner = Owner(platform)
    enrolment = owner.set_up()
    used = owner.totp.now()
    owner.log_in(otp=used)
    owner.log_in(otp=enrolment["recovery_codes"][0])

    def told() -> str:
        answer = platform.admin.get("/logs", user=owner.id, limit=200)
        actions = [row["action"] for row in answer.json()["items"]]
        return answer.text if {"users.begin_totp", "users.confirm_totp", "users.sign_in"} <= set(actions) else ""

    text = eventually(told)
    logs = "".join(path.read_text(errors="replace") for path in platform.system.home.logs.glob("*"))
    for secret in (enrolment["secret"], *enrolment["recovery_codes"]):
        assert secret not in text
        assert secret not in logs
    assert f'"{used}"' not in text
    assert f'"{used}"' not in logs
