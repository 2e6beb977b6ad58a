"""The key that signs access tokens is changed while everything runs, and no request is refused for it."""

import os
import secrets
import subprocess
import sys
import threading
from collections import Counter
from typing import Any

import jwt
import pytest
import requests

from operations.errors import OperationFailed
from operations.signing_keys import rotate_signing_key
from operations.supervision import ROOT
from tests.e2e.conftest import Api, Platform, eventually

AFTER_SECONDS = 10  # more than the five within which a gateway asks for no unknown key


def key_id_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def published(platform: Platform) -> list[str]:
    answer = requests.get(f"{platform.anonymous.url}/.well-known/jwks.json", timeout=10)
    return [key["kid"] for key in answer.json()["keys"]]


class Worker(threading.Thread):
    """Somebody who works on without a pause, and refreshes their tokens with every round."""

    def __init__(self, platform: Platform, tokens: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self.url, self.tokens = platform.anonymous.url, tokens
        self.anonymous = platform.anonymous
        self.outcomes: Counter[tuple[str, int]] = Counter()
        self.is_done = threading.Event()

    def run(self) -> None:
        while not self.is_done.wait(0.02):
            token = self.tokens["access_token"]
            self.outcomes[key_id_of(token), Api(self.url, token).get("/me").status_code] += 1
            answer = self.anonymous.post("/auth/refresh", {"refresh_token": self.tokens["refresh_token"]}, key="")
            self.outcomes["refresh", answer.status_code] += 1
            if answer.status_code == 200:
                self.tokens = answer.json()


def test_new_key_takes_over_and_nobody_is_refused(platform: Platform) -> None:
    credentials = _person(platform)
    first, second = (platform.anonymous.post("/auth/login", credentials, key="").json() for _ in range(2))
    old = key_id_of(first["access_token"])
    before = published(platform)
    assert before[0] == old
    worker = Worker(platform, second)
    worker.start()
    try:
        told = subprocess.run(
            [sys.executable, "-m", "operations", "rotate-keys", "signing", "--after", str(AFTER_SECONDS)],
            env=os.environ | {"COUNTINGHOUSE_HOME": str(platform.system.home.path)},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert "A new key is published, and signs from" in told.stdout, told.stderr
        [new] = set(published(platform)) - set(before)
        assert published(platform)[0] == old  # published, and not signing yet
        with pytest.raises(OperationFailed, match="waits already"):
            rotate_signing_key(platform.system, reason="too soon", after_seconds=AFTER_SECONDS)
        eventually(lambda: worker.outcomes[new, 200] > 20, within_seconds=30)
    finally:
        worker.is_done.set()
        worker.join()
    assert {status for _, status in worker.outcomes} == {200}
    assert worker.outcomes[old, 200] > 20
    assert published(platform)[:2] == [new, old]
    assert Api(platform.anonymous.url, first["access_token"]).get("/me").status_code == 200  # of the old key
    platform.system.restart("users")
    platform.system.wait_ready()
    assert Api(platform.anonymous.url, first["access_token"]).get("/me").status_code == 200

    def rows() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = platform.admin.get("/logs", resource_id=new).json()["items"]
        return found

    [row] = eventually(rows)
    assert (row["event"], row["reason"]) == ("SigningKeyRotated", "Routine rotation.")


def _person(platform: Platform) -> dict[str, str]:
    username, password = f"keys-{secrets.token_hex(4)}", "violet kettle harbour"
    made = platform.admin.post("/users", {"username": username}).json()
    api = platform.anonymous.signed_in(username, made["temporary_password"])
    body = {"current_password": made["temporary_password"], "new_password": password}
    assert api.post("/auth/password", body).status_code == 204
    return {"username": username, "password": password}
