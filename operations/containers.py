"""The same system in containers, for machines where PostgreSQL and RabbitMQ can neither be found nor installed.

Every command is handed to `docker compose` with a project, a port and passwords of this home, so that two homes stay
two systems here too.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence

import requests

from operations.bus import GATEWAY
from operations.errors import OperationFailed
from operations.home import Home, write_private
from operations.ports import is_free
from operations.processes import SCALABLE, gateway_port, gateway_url
from operations.progress import Progress
from operations.supervision import ROOT

CHOICE = "COUNTINGHOUSE_SERVERS"
ENGINE_TIMEOUT_SECONDS = 15
READY_TIMEOUT_SECONDS = 180
BY_OPERATIONS = ("admin", "ledger", "audit", "dlq")


def are_possible() -> bool:
    """Return whether a container engine with compose answers."""
    if not shutil.which("docker"):
        return False
    try:
        asked = [["docker", "compose", "version"], ["docker", "info"]]
        return all(_is_well(command) for command in asked)
    except subprocess.TimeoutExpired:
        return False


def _is_well(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, timeout=ENGINE_TIMEOUT_SECONDS).returncode == 0


class Containers:
    """The containers of one home."""

    def __init__(self, home: Home) -> None:
        self.home = home

    @property
    def are_chosen(self) -> bool:
        """Whether this home's system was started in containers."""
        return bool(self.home.state.get("runs_in") == "containers")

    def up(self, progress: Progress) -> None:
        """Build the image, start every container, and wait until the gateway is ready. Idempotent."""
        self.home.state.set("runs_in", "containers")
        if not self._is_running() and not is_free(gateway_port(self.home)):
            self.home.forget_port(GATEWAY)
        with progress.step("Image"):
            self._compose("build", "--quiet", "deploy")
        with progress.step("Containers") as step:
            self._compose("up", "--detach", "--no-build", *self._scales())
            self._wait_ready()
            step.outcome = f"project {self._project}"
        if not self.home.first_sign_in.exists():
            first = json.loads(self._compose("run", "--rm", "first-sign-in"))
            write_private(
                self.home.first_sign_in, json.dumps({**first, "url": gateway_url(self.home)}, indent=1) + "\n"
            )

    def down(self, progress: Progress, *, with_data: bool = False) -> None:
        """Stop and remove the containers. The volumes, which hold the data, stay unless told otherwise."""
        with progress.step("Stop containers"):
            self._compose("down", *(["--volumes"] if with_data else []))

    def hand_over(self, arguments: Sequence[str]) -> int:
        """Do a command of `countinghouse` in containers. Returns: its code."""
        name, *rest = arguments
        if name == "scale":
            return self._scale(*rest)
        if name in BY_OPERATIONS:
            return self._follow("run", "--rm", "--no-deps", "deploy", "python", "-m", "operations", *arguments)
        commands = {
            "down": ["down"],
            "status": ["ps", "--all"],
            "logs": ["logs", "--tail", "200", *rest],
            "restart": ["restart", *rest],
        }
        if name not in commands:
            raise OperationFailed(f"{name} works with the processes of this machine, and these are containers.")
        return self._follow(*commands[name])

    def _scale(self, assignment: str) -> int:
        service, _, count = assignment.partition("=")
        if service not in SCALABLE or service == GATEWAY or not count.isdigit():
            raise OperationFailed(f"Write it like this: ./countinghouse scale ledger=2, not {assignment!r}.")
        self.home.state.set("scale", {**self.home.state.get("scale", {}), service: int(count)})
        return self._follow("up", "--detach", "--no-build", "--no-recreate", *self._scales())

    def _scales(self) -> list[str]:
        scale: dict[str, int] = self.home.state.get("scale", {})
        return [word for service, count in scale.items() for word in ("--scale", f"{service}={count}")]

    def _is_running(self) -> bool:
        return bool(self._compose("ps", "--quiet", GATEWAY).strip())

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while True:
            try:
                requests.get(f"{gateway_url(self.home)}/readyz", timeout=5).raise_for_status()
            except requests.RequestException as error:
                if time.monotonic() > deadline:
                    raise OperationFailed(f"Not ready after {READY_TIMEOUT_SECONDS} s: {error}") from error
                time.sleep(0.5)
            else:
                return

    @property
    def _project(self) -> str:
        return f"countinghouse-{self.home.marker[:8]}"

    def environment(self) -> dict[str, str]:
        """Return the environment in which `docker compose` means this home."""
        return {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self._project,
            "GATEWAY_PORT": str(gateway_port(self.home)),
            "POSTGRES_PASSWORD": self.home.password("containers:postgres"),
            "RABBITMQ_PASSWORD": self.home.password("containers:rabbitmq"),
        }

    def _compose(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker", "compose", *arguments], cwd=ROOT, env=self.environment(), capture_output=True, text=True
        )
        if done.returncode != 0:
            raise OperationFailed(f"docker compose {' '.join(arguments)} failed:\n{done.stderr}")
        return done.stdout

    def _follow(self, *arguments: str) -> int:
        return subprocess.run(["docker", "compose", *arguments], cwd=ROOT, env=self.environment()).returncode
