"""No process is left behind: finds those of a home by the marker in their environment, and ends them."""

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from operations.home import Home

MARKER = "COUNTINGHOUSE_PROCESS_OF"
GRACE_SECONDS = 25
KILL_TIMEOUT_SECONDS = 10


def end_leftovers(home: Home, cluster_pid: int | None) -> None:
    """End every process that carries this home's marker, and its PostgreSQL, which hides its environment."""
    left = set(processes_of(home)) - _ancestors()
    _signal(left, signal.SIGTERM)
    if cluster_pid:
        _signal({cluster_pid}, signal.SIGINT)
        left.add(cluster_pid)
    if not wait_gone(left, timeout_seconds=GRACE_SECONDS):
        _signal(left, signal.SIGKILL)
        wait_gone(left, timeout_seconds=KILL_TIMEOUT_SECONDS)


def processes_of(home: Home) -> list[int]:
    """Return the ids of all processes that carry this home's marker, the supervisor's orphans included.

    Only where the kernel shows processes under /proc; elsewhere the supervisor's own word has to do.
    """
    mark = f"{MARKER}={home.marker}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except PermissionError:  # in a container even root may not read the environment of another account
            if _is_server_of(home, folder):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def _is_server_of(home: Home, folder: Path) -> bool:
    """Return whether a process was started with this home's data, or is its epmd, going by its command line."""
    try:
        words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    data, epmd_port = home.state.get("servers"), str(home.state.get("ports", {}).get("epmd", ""))
    is_epmd = "epmd" in words[0] and bool(epmd_port) and epmd_port in words
    return is_epmd or (bool(data) and any(data in word for word in words))


def wait_gone(pids: Iterable[int], *, timeout_seconds: float) -> bool:
    """Wait until none of these processes is there any more; zombies count as gone."""
    deadline = time.monotonic() + timeout_seconds
    left = list(pids)
    while left := [pid for pid in left if _lives(pid)]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except (FileNotFoundError, IndexError):
        return not Path("/proc/self").exists()


def _ancestors() -> set[int]:
    """Return this process and those that started it, which may carry the marker too."""
    pids, pid = set(), os.getpid()
    while pid > 1:
        pids.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            break
    return pids


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
