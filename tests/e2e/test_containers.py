"""The whole system in containers, as `docker compose up` and a machine without servers have it."""

import json
import subprocess
from collections.abc import Iterator

import pytest
import requests

from operations.containers import Containers, are_possible
from operations.home import Home
from operations.processes import gateway_url
from operations.progress import Progress
from operations.supervision import ROOT
from tests.e2e.conftest import Api, eventually

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home whose system runs in containers; they and their volumes are removed at the end."""
    if not are_possible():
        pytest.skip("no container engine answers")
    home = Home(tmp_path_factory.mktemp("home"))
    containers = Containers(home)
    try:
        containers.up(Progress(is_silent=True))
        yield home
    finally:
        containers.down(Progress(is_silent=True), with_data=True)


def compose(home: Home, *arguments: str) -> str:
    command = ["docker", "compose", *arguments]
    environment = Containers(home).environment()
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


def test_first_administrator_signs_in(home: Home) -> None:
    first = json.loads(home.first_sign_in.read_text())

    api = Api(first["url"]).signed_in(first["username"], first["password"])

    assert api.get("/me").json()["username"] == first["username"]


def test_only_the_gateway_is_published_and_on_loopback_only(home: Home) -> None:
    rows = [json.loads(line) for line in compose(home, "ps", "--format", "json").splitlines()]

    ports = [(row["Service"], port) for row in rows for port in row["Publishers"] or ()]
    assert {(service, port["URL"]) for service, port in ports if port["PublishedPort"]} == {("gateway", "127.0.0.1")}


def test_service_scales_without_a_restart_of_the_first_instance(home: Home) -> None:
    before = compose(home, "ps", "--quiet", "ledger").split()

    assert Containers(home).hand_over(["scale", "ledger=2"]) == 0

    after = compose(home, "ps", "--quiet", "ledger").split()
    assert len(after) == 2
    assert set(before) < set(after)


def test_process_sees_its_own_secrets_only(home: Home) -> None:
    seen = compose(home, "exec", "-T", "cards", "sh", "-c", "ls /orders /orders/..; cat /orders/orders.json")

    assert "PASSPORT_KEY_USERS" in seen
    assert "PASSPORT_KEY_LEDGER" not in seen
    assert "signing.pem" not in seen


def test_each_service_calls_itself_healthy(home: Home) -> None:
    def all_healthy() -> bool:
        rows = [json.loads(line) for line in compose(home, "ps", "--format", "json").splitlines()]
        return all(row["Health"] in ("healthy", "") for row in rows)

    eventually(all_healthy, within_seconds=120)
    assert requests.get(f"{gateway_url(home)}/readyz", timeout=10).status_code == 200


def test_ledger_is_verified_from_the_command_line(home: Home) -> None:
    assert Containers(home).hand_over(["ledger", "verify"]) == 0
