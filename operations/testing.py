"""`./countinghouse test`: the linters and the tests, on a throwaway PostgreSQL and RabbitMQ."""

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from operations.progress import Progress
from operations.supervision import ROOT
from operations.throwaway import run_beside, throwaway_servers

PROGRAMS = Path(sys.executable).parent
CHECKS = (["ruff", "check", "."], ["mypy"], ["lint-imports"])
DOCKER_TIMEOUT_SECONDS = 10
END_TO_END = "tests/e2e"


def run_tests(paths: Sequence[str]) -> int:
    """Run the linters and every test, or only pytest on the given paths.

    Returns: pytest's code; 1 when pytest passed and a linter did not.
    """
    progress = Progress()
    failed_checks = [] if paths else _run_checks(progress)
    with throwaway_servers(progress, purpose="test") as addresses:
        code = _run_pytest(progress, addresses, paths)
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


def _run_pytest(progress: Progress, addresses: Mapping[str, str], paths: Sequence[str]) -> int:
    left_out = _left_out()
    for marker, why in left_out.items():
        progress.say(f"Left out: tests marked `{marker}`, {why}.")
    command = [sys.executable, "-m", "pytest"]
    if left_out:
        command += ["-m", " and ".join(f"not {marker}" for marker in left_out)]
    if paths:
        return run_beside(addresses, [*command, *paths])
    # What drives a whole system waits for it most of the time, and has servers of its own.
    return run_beside(addresses, [*command, f"--ignore={END_TO_END}"], [*command, END_TO_END])


def _left_out() -> dict[str, str]:
    """Return which markers cannot be honoured on this machine, and why."""
    if not shutil.which("docker"):
        return {"docker": "no docker command is on this machine"}
    try:
        answer = subprocess.run(["docker", "info"], capture_output=True, timeout=DOCKER_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        return {"docker": "the container engine does not answer"}
    return {} if answer.returncode == 0 else {"docker": "no container engine answers"}
