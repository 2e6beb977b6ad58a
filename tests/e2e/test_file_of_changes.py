"""Ten thousand changes of all types from a file, by the README's commands: posted once, however often it is posted."""

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Platform

ROOT = Path(__file__).resolve().parents[2]
ROWS, USERS = 10_000, 200
VICTIMS = ("ledger", "rabbitmq", "users", "gateway", "audit", "settings", "cards", "tasks", "telegram", "ledger")


def run(module: str, *words: str, home: Path | None = None) -> str:
    """Run a command of the README, for a home where it needs one. Returns: what it printed."""
    command = [sys.executable, "-m", module, *words]
    environment = {**os.environ, **({"COUNTINGHOUSE_HOME": str(home)} if home else {})}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def file(platform: Platform, tmp_path: Path) -> Path:
    """A file for merchants and users of its own."""
    merchants = ",".join(f"F{secrets.token_hex(3)}".upper() for _ in range(2))
    seed = str(secrets.randbelow(10**6))
    made = run(
        "simulators.sample_data", "changes", "--rows", str(ROWS), "--users", str(USERS), "--seed", seed,
        "--merchants", merchants,
    )  # fmt: skip
    path = tmp_path / "changes.csv"
    path.write_text(made)
    return path


def test_file_is_posted_once_however_often_it_is_posted(platform: Platform, file: Path) -> None:
    sign_in = str(platform.system.home.first_sign_in)
    first = run("simulators.post_changes", str(file), "--sign-in", sign_in)
    assert f"{ROWS} changes in 20 batches, 0 of them posted before" in first
    assert "The gateway's summary equals the file's." in first
    balances = platform.admin.get("/trial-balance").json()["items"]
    assert {row["currency"] for row in balances} >= {"CNY", "USDT"}
    assert {row["sum"] for row in balances} == {"0"}
    second = run("simulators.post_changes", str(file), "--sign-in", sign_in)
    assert f"{ROWS} changes in 20 batches, 20 of them posted before" in second
    assert "The gateway's summary equals the file's." in second
    assert platform.admin.get("/trial-balance").json()["items"] == balances


def test_file_is_posted_once_though_any_process_dies_meanwhile(platform: Platform, file: Path) -> None:
    sign_in = str(platform.system.home.first_sign_in)
    command = [sys.executable, "-m", "simulators.post_changes", str(file), "--sign-in", sign_in, "--batch-size", "50"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as posting:
        for service in VICTIMS:
            try:
                posting.wait(1)
            except subprocess.TimeoutExpired:
                platform.system.kill(service)
        printed, _ = posting.communicate(timeout=200)
    assert posting.returncode == 0, printed
    assert f"{ROWS} changes in 200 batches" in printed
    assert "The gateway's summary equals the file's." in printed
    assert {row["sum"] for row in platform.admin.get("/trial-balance").json()["items"]} == {"0"}
    platform.system.wait_ready()
    assert "ok: True\nmode: full" in run("operations", "ledger", "verify", home=platform.system.home.path)
    assert "ok: True" in run("operations", "audit", "verify", home=platform.system.home.path)
