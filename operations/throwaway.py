"""A PostgreSQL and a RabbitMQ that live as long as a test run or a measurement, and leave nothing behind."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

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


def run_beside(addresses: Mapping[str, str], *commands: Sequence[str]) -> int:
    """Run commands side by side that know the servers' addresses; interrupted, they clean up after themselves.

    The first is seen at its work; what the others say is shown when they are done.
    Returns: the first code that is not zero, if there is one.
    """
    environment = {**os.environ, **addresses}
    environment.pop("COUNTINGHOUSE_HOME", None)
    with ExitStack() as stack:
        running: list[tuple[subprocess.Popen[bytes], IO[bytes] | None]] = []
        with _interrupts_noted() as interrupts:
            for command in commands:
                output = stack.enter_context(tempfile.TemporaryFile()) if running else None
                # A session of its own: a terminal's Ctrl-C reaches it through us, once.
                process = subprocess.Popen(
                    command, cwd=ROOT, env=environment, start_new_session=True, stdout=output, stderr=output
                )
                running.append((stack.enter_context(process), output))
        try:
            if interrupts:
                raise KeyboardInterrupt
            return next((code for code in [_end(*each) for each in running] if code), 0)
        except KeyboardInterrupt:
            for process, _ in running:
                process.send_signal(signal.SIGINT)
            for process, _ in running:
                process.wait(ENDING_SECONDS_MAX)
            raise


@contextmanager
def _interrupts_noted() -> Iterator[list[int]]:
    """Note a Ctrl-C in place of carrying it out: between a process and its place in a list it would be lost on it."""
    noted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: noted.append(number))
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


def _end(process: subprocess.Popen[bytes], output: IO[bytes] | None) -> int:
    """Wait for a process and show what it said, unless that was seen. Returns: its code."""
    code = process.wait()
    if output is not None:
        output.seek(0)
        sys.stdout.flush()
        shutil.copyfileobj(output, sys.stdout.buffer)
        sys.stdout.flush()
    return code
