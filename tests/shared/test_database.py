"""A service does not start where one statement would stop all of it."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

START = """
import sys
from shared import runner  # patches, and chooses how psycopg waits unless that is chosen already
from shared.database import check_cooperative, make_engine
check_cooperative(make_engine(sys.argv[1], connections_max=1))
"""


@pytest.mark.parametrize(("wait_function", "starts"), [("wait_select", True), ("wait_c", False)])
def test_where_a_statement_stops_the_loop_nothing_starts(
    make_database: Callable[[str], str], wait_function: str, starts: bool
) -> None:
    environment = os.environ | {"PSYCOPG_WAIT_FUNC": wait_function}
    done = subprocess.run(
        [sys.executable, "-c", START, make_database("settings")],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode == 0) is starts, done.stderr
    assert ("psycopg stops the event loop" in done.stderr) is not starts
