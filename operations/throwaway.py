"""A PostgreSQL and a RabbitMQ that live as long as a test run or a measurement, and leave nothing behind."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from operations.home import Home
from operations.progress import Progress
from operations.supervision import ROOT
from operations.system import System

ENDING_SECONDS_MAX = 120


@contextmanager
def throwaway_servers(progress: Progress, *, purpose: str) -> Iterator[dict[str, str]]:
    """Give DATABASE_URL and AMQP_URL of fresh private servers, which are stopped and deleted whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix=f"countinghouse-{purpose}-"))
    folder.chmod(0o711)  # the servers' own accounts must pass
    system = System(Home(folder), progress=progress)
    try:
        system.start_servers()
        yield {"DATABASE_URL": system.servers.database_url, "AMQP_URL": system.servers.amqp_url}
    finally:
        system.down()
        system.destroy()


def run_beside(addresses: Mapping[str, str], command: Sequence[str]) -> int:
    """Run a command that knows the servers' addresses, and let it clean up after itself when we are interrupted.

    Returns: its code.
    """
    environment = {**os.environ, **addresses}
    environment.pop("COUNTINGHOUSE_HOME", None)
    # A session of its own: a terminal's Ctrl-C reaches it through us, once.
    with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait(ENDING_SECONDS_MAX)
            raise
