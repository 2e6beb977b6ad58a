"""`./countinghouse test`: the linters and the tests, on a throwaway PostgreSQL and RabbitMQ."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from operations.home import Home
from operations.progress import Progress
from operations.supervision import ROOT
from operations.system import System

PROGRAMS = Path(sys.executable).parent
CHECKS = (["ruff", "check", "."], ["mypy"], ["lint-imports"])
DOCKER_TIMEOUT_SECONDS = 10


def run_tests(paths: Sequence[str]) -> int:
    """Run the linters and every test, or only pytest on the given paths.

    Returns: pytest's code; 1 when pytest passed and a linter did not.
    """
    progress = Progress()
    failed_checks = [] if paths else _run_checks(progress)
    folder = Path(tempfile.mkdtemp(prefix="countinghouse-test-"))
    folder.chmod(0o711)
    system = System(Home(folder), progress=progress)
    try:
        system.start_servers()
        code = _run_pytest(system, paths)
    finally:
        system.down()
        system.destroy()
    if failed_checks:
        progress.say(f"Failed before the tests: {', '.join(failed_checks)}. See above.")
    return code or (1 if failed_checks else 0)


def _run_checks(progress: Progress) -> list[str]:
    failed = []
    for name, *arguments in CHECKS:
        with progress.step(name) as step:
            done = subprocess.run([PROGRAMS / name, *arguments], cwd=ROOT, capture_output=True, text=True)
            if done.returncode != 0:
                step.outcome = "FAILED"
                failed.append(name)
        if done.returncode != 0:
            progress.say(done.stdout + done.stderr)
    return failed


def _run_pytest(system: System, paths: Sequence[str]) -> int:
    left_out = _left_out()
    for marker, why in left_out.items():
        system.progress.say(f"Left out: tests marked `{marker}`, {why}.")
    command = [sys.executable, "-m", "pytest", *paths]
    if left_out:
        command += ["-m", " and ".join(f"not {marker}" for marker in left_out)]
    environment = {
        **os.environ,
        "DATABASE_URL": system.servers.database_url,
        "AMQP_URL": system.servers.amqp_url,
    }
    environment.pop("COUNTINGHOUSE_HOME", None)
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


def _left_out() -> dict[str, str]:
    """Return which markers cannot be honoured on this machine, and why."""
    if not shutil.which("docker"):
        return {"docker": "no docker command is on this machine"}
    try:
        answer = subprocess.run(["docker", "info"], capture_output=True, timeout=DOCKER_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        return {"docker": "the container engine does not answer"}
    return {} if answer.returncode == 0 else {"docker": "no container engine answers"}
