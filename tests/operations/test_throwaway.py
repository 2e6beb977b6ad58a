"""Commands beside throwaway servers: at the same time, with their codes, and ended cleanly when interrupted."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from operations.throwaway import run_beside

WAIT_FOR = """
import pathlib, sys, time
mine, other = map(pathlib.Path, sys.argv[1:])
mine.touch()
until = time.monotonic() + 20
while not other.exists():
    assert time.monotonic() < until
    time.sleep(0.02)
"""


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def test_commands_run_at_the_same_time(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert run_beside({}, python(WAIT_FOR, one, two), python(WAIT_FOR, two, one)) == 0


@pytest.mark.parametrize("codes", [(3, 0), (0, 3)])
def test_failure_of_either_is_a_failure(codes: tuple[int, int]) -> None:
    assert run_beside({}, *(python(f"raise SystemExit({code})") for code in codes)) == 3


def test_commands_know_the_addresses_and_all_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import os; print(os.environ['SERVER'], 'heard', flush=True)"
    assert run_beside({"SERVER": "here"}, python(code), python(code)) == 0
    assert capfd.readouterr().out.count("here heard") == 2


@pytest.mark.parametrize("begun", [1, 2])
def test_interrupted_commands_clean_up_after_themselves(tmp_path: Path, begun: int) -> None:
    clean_up = """
import pathlib, sys, time
try:
    pathlib.Path(sys.argv[1] + ".begun").touch()
    time.sleep(30)
finally:
    pathlib.Path(sys.argv[1] + ".ended").touch()
"""
    both = """
import sys
from operations.throwaway import run_beside
run_beside({}, *([sys.executable, "-c", sys.argv[1], path] for path in sys.argv[2:]))
"""
    paths = [tmp_path / "one", tmp_path / "two"]
    outer = subprocess.Popen(python(both, clean_up, *paths), stderr=subprocess.DEVNULL, cwd=Path.cwd())
    while not all(Path(f"{path}.begun").exists() for path in paths[:begun]):
        assert outer.poll() is None
    os.kill(outer.pid, signal.SIGINT)
    assert outer.wait(20) != 0
    assert all(Path(f"{path}.ended").exists() for path in paths if Path(f"{path}.begun").exists())
