"""The README's tour, run as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from operations import demo
from tests.e2e.conftest import Platform

ROOT = Path(__file__).resolve().parents[2]


def tour() -> str:
    """Return the tour's commands, in their order."""
    page = (ROOT / "README.md").read_text()
    section = page.split("## A tour of ten minutes")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))


@pytest.mark.timeout(600)
def test_the_tour_shows_what_it_promises(platform: Platform, tmp_path: Path) -> None:
    demo.fill(platform.system)
    commands = tour().replace("/tmp/changes.csv", str(tmp_path / "changes.csv"))  # noqa: S108
    # The launcher would make its own environment; the tests are in one already.
    commands = commands.replace("./countinghouse", "python -P -m operations")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "COUNTINGHOUSE_HOME": str(platform.system.home.path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-eu", "-c", commands], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for promised in (
        '"order_no":"R-TOUR-1"',
        "Idempotent-Replayed: true",
        '"code":"insufficient_balance"',
        "entry_id,user_id,holder_type",
        '"rows_new":1',
        '"found":1',
        '"upstream":"79.97"',
        "'amount': '-0.03'",
        "\ncorrected\nproved: ",
        '"status":"pending_approval"',
        '"name":"recharge_total"',
        '"state":"posted"',
        '"next_within_seconds"',
        "\nonline\n",
        '"kind":"balance"',
        '"code":"AURORA"',
        '"code":"order_not_found"',
        "10000 changes in 20 batches, 0 of them posted before",
        "The gateway's summary equals the file's.",
        "10000 changes in 20 batches, 20 of them posted before",
        "ok: True\nmode: full",
    ):
        assert promised in done.stdout, promised
