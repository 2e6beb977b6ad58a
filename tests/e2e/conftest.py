"""The whole system, as `./countinghouse up` runs it: own PostgreSQL, own RabbitMQ, every service its own process."""

import json
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from operations import ports
from operations.home import Home
from operations.system import System

ANSWER_SECONDS_MAX = 30


def eventually(check: Callable[[], Any], *, within_seconds: float = 20) -> Any:
    """Return what `check` returns as soon as it is true. Fails when it is not so in time."""
    give_up_at = time.monotonic() + within_seconds
    while not (found := check()):
        assert time.monotonic() < give_up_at, "it did not come true in time"
        time.sleep(0.1)
    return found


class Api:
    """Somebody's way in over HTTP. Answers are responses; nothing is raised."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url
        self.http = requests.Session()
        if token:
            self.http.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, **query: Any) -> requests.Response:
        """Ask for something."""
        return self.http.get(f"{self.url}/api/v1{path}", params=query, timeout=ANSWER_SECONDS_MAX)

    def post(self, path: str, body: Any = None, *, key: str | None = None, **headers: str) -> requests.Response:
        """Post something, under a fresh idempotency key unless one is given; `key=""` sends none."""
        key = secrets.token_hex(16) if key is None else key
        sent = {"Idempotency-Key": key, **headers} if key else headers
        body = {} if body is None else body
        return self.http.post(f"{self.url}/api/v1{path}", json=body, headers=sent, timeout=ANSWER_SECONDS_MAX)

    def put(self, path: str, body: Any) -> requests.Response:
        """Replace something."""
        return self.http.put(f"{self.url}/api/v1{path}", json=body, timeout=ANSWER_SECONDS_MAX)

    def patch(self, path: str, body: Any) -> requests.Response:
        """Change something."""
        return self.http.patch(f"{self.url}/api/v1{path}", json=body, timeout=ANSWER_SECONDS_MAX)

    def signed_in(self, username: str, password: str) -> "Api":
        """Return the same way in, for somebody."""
        answer = self.post("/auth/login", {"username": username, "password": password}, key="")
        assert answer.status_code == 200, answer.text
        return Api(self.url, answer.json()["access_token"])


class Platform:
    """A running system with an administrator, and people and merchants as a test wants them."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.anonymous = Api(system.url)
        sign_in = json.loads(system.home.first_sign_in.read_text())
        self.admin = self.anonymous.signed_in(sign_in["username"], sign_in["password"])

    def merchant(self) -> str:
        """Return a fresh merchant's id."""
        code = f"M{secrets.token_hex(4)}".upper()
        answer = self.admin.post("/merchants", {"code": code, "name": f"Merchant {code}"})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def person(self, *, roles: list[str], merchants: Any) -> Api:
        """Return the way in of a fresh user, who has changed the temporary password."""
        api, _ = self.person_and_id(roles=roles, merchants=merchants)
        return api

    def person_and_id(self, *, roles: list[str], merchants: Any) -> tuple[Api, str]:
        """Return the way in of a fresh user, and the user's id."""
        username, password = f"user-{secrets.token_hex(4)}", secrets.token_urlsafe(16)
        body = {"username": username, "display_name": username, "roles": roles, "merchants": merchants}
        answer = self.admin.post("/users", body)
        assert answer.status_code == 201, answer.text
        temporary = answer.json()["temporary_password"]
        first = self.anonymous.signed_in(username, temporary)
        changed = first.post("/auth/password", {"current_password": temporary, "new_password": password})
        assert changed.status_code < 300, changed.text
        return self.anonymous.signed_in(username, password), str(answer.json()["id"])

    def recharge(self, merchant_id: str, user_id: str, amount: str) -> requests.Response:
        """Post a recharge of a user."""
        return self.admin.post(
            "/balance-changes",
            {
                "merchant_id": merchant_id,
                "user_id": user_id,
                "type": 321,
                "amount": amount,
                "currency": "CNY",
                "order_no": f"R{secrets.token_hex(8)}",
                "channel": "alipay",
            },
        )


@contextmanager
def started_system() -> Iterator[System]:
    """Give a system in a home of its own, taken down with all its processes at the end."""
    folder = Path(tempfile.mkdtemp(prefix="countinghouse-e2e-"))
    folder.chmod(0o711)
    system = System(Home(folder))
    system.move_gateway(ports.choose())  # 8080 may be that of a system that somebody is using
    try:
        system.up()
        yield system
    finally:
        system.down()
        system.destroy()


@pytest.fixture(scope="session")
def running_system() -> Iterator[System]:
    """The system that the tests share. What closes days, or makes people who see all, is for a system of its own."""
    with started_system() as system:
        yield system


@pytest.fixture
def platform(running_system: System) -> Platform:
    """The running system, ready."""
    running_system.wait_ready()
    return Platform(running_system)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark whatever runs the whole system."""
    for item in items:
        if "platform" in getattr(item, "fixturenames", ()) or "running_system" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(300))
