"""The commands of whoever runs the system, on the running system."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import requests

from operations.calls import Caller
from operations.home import Home
from operations.leftovers import processes_of
from operations.processes import processes
from operations.supervision import ROOT, STATE_RUNNING
from operations.system import System
from tests.e2e.conftest import Platform, eventually

SECOND_UP_SECONDS_MAX = 15
COMMAND_SECONDS_MAX = 200


def pids_of(system: System) -> dict[str, int]:
    return {name: process.pid for name, process in system.states().items()}


def countinghouse(home: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a command as the launcher hands it over."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith(("DATABASE_URL", "AMQP_URL"))}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "operations", *arguments],
        env={**environment, "PYTHONPATH": str(ROOT), "COUNTINGHOUSE_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_second_up_is_fast_and_leaves_every_process_alone(platform: Platform) -> None:
    before = pids_of(platform.system)
    start = time.monotonic()

    platform.system.up()

    assert time.monotonic() - start < SECOND_UP_SECONDS_MAX
    assert pids_of(platform.system) == before


def test_first_sign_in_is_told_to_its_owner_only(platform: Platform) -> None:
    file = platform.system.home.first_sign_in

    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text()).keys() == {"url", "username", "password"}


def test_scaling_a_service_leaves_every_other_process_alone(platform: Platform) -> None:
    before = pids_of(platform.system)

    platform.system.scale("ledger", 2)
    with_two = pids_of(platform.system)
    platform.system.scale("ledger", 1)

    assert with_two.keys() - before.keys() == {"ledger-2"}
    assert pids_of(platform.system) == before


def test_restarted_service_is_another_process_and_serves(platform: Platform) -> None:
    before = pids_of(platform.system)

    platform.system.restart("settings")

    after = pids_of(platform.system)
    assert [name for name, pid in after.items() if before[name] != pid] == ["settings-1"]
    assert platform.admin.get("/settings/parameters").status_code == 200


def test_killed_process_is_started_again_by_itself(platform: Platform) -> None:
    killed = platform.system.kill("cards")

    eventually(lambda: pids_of(platform.system)["cards-1"] not in (0, *killed))
    platform.system.wait_ready()


def test_every_process_listed_runs(platform: Platform) -> None:
    for process in processes(platform.system.home):
        eventually(lambda name=process.name: platform.system.states()[name].state == STATE_RUNNING)


def test_ledger_and_log_are_verified_from_the_command_line(platform: Platform) -> None:
    with Caller(platform.system) as caller:
        assert caller.call("ledger", "verify_ledger")["ok"] is True
        assert caller.call("audit", "verify_chain")["ok"] is True


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_ctrl_c_stops_everything_and_leaves_no_process() -> None:
    home = Path(tempfile.mkdtemp(prefix="countinghouse-e2e-"))  # pytest's own folders are closed to the servers
    home.chmod(0o711)
    command = countinghouse(home, "up")
    try:
        assert command.stdout
        said = ""
        while "Ctrl-C stops everything" not in said:
            line = command.stdout.readline()
            assert line, said
            said += line
        system = System(Home(home))
        assert requests.get(f"{system.url}/readyz", timeout=10).status_code == 200

        command.send_signal(signal.SIGINT)
        rest, _ = command.communicate(timeout=COMMAND_SECONDS_MAX)

        assert command.returncode == 0, rest
        assert processes_of(system.home) == []
        assert not system.states()
    finally:
        command.kill()
        System(Home(home)).down()
        System(Home(home)).destroy()
