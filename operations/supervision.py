"""The supervisor of one home: its configuration, starting and stopping it, and asking it about its programs.

Each instance of a service is a program of its own, so that scaling one never touches the others.
"""

import os
import signal
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from operations.errors import OperationFailed
from operations.home import Home, write_private
from operations.leftovers import GRACE_SECONDS, MARKER, wait_gone

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_SECONDS = 15
STATE_RUNNING = "RUNNING"
STATES_DOWN = ("STOPPED", "EXITED", "FATAL", "UNKNOWN")


@dataclass(frozen=True)
class Program:
    """One supervised process."""

    name: str
    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    directory: Path = ROOT
    stop_signal: str = "TERM"

    def section(self, logs: Path) -> str:
        """Return the program's part of the supervisor's configuration."""
        lines = [
            f"[program:{self.name}]",
            "command=" + " ".join(_quoted(word) for word in self.command),
            f"directory={_escaped(str(self.directory))}",
            "autostart=false",
            "autorestart=true",
            "startsecs=1",
            "startretries=1000000",
            f"stopsignal={self.stop_signal}",
            f"stopwaitsecs={GRACE_SECONDS}",
            "killasgroup=true",
            "redirect_stderr=true",
            f"stdout_logfile={_escaped(str(logs / (self.name + '.log')))}",
            "stdout_logfile_maxbytes=20MB",
            "stdout_logfile_backups=3",
        ]
        if self.user and os.geteuid() == 0:
            lines.append(f"user={self.user}")
        if self.environment:
            lines.append("environment=" + ",".join(f"{key}={_quoted(word)}" for key, word in self.environment.items()))
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class ProcessState:
    """What the supervisor knows of a program."""

    name: str
    state: str
    pid: int
    seconds_up: int
    starts_failed: str


class Supervisor:
    """The supervisor process below one home."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._configuration = home.run / "supervisord.conf"
        self._pid_file = home.run / "supervisord.pid"

    def configure(self, programs: Iterable[Program]) -> None:
        """Write the configuration; a running supervisor reads it with `reconcile`."""
        own_user = "user=root\n" if os.geteuid() == 0 else ""
        head = (
            f"[supervisord]\n{own_user}"
            f"pidfile={_escaped(str(self._pid_file))}\n"
            f"logfile={_escaped(str(self.home.logs / 'supervisor.log'))}\n"
            "logfile_maxbytes=5MB\nlogfile_backups=1\n"
            f"childlogdir={_escaped(str(self.home.logs))}\n"
            "umask=077\nidentifier=countinghouse\n\n"
            f"[unix_http_server]\nfile={_escaped(str(self.home.supervisor_socket))}\nchmod=0700\n\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\n"
        )
        write_private(self._configuration, head + "\n".join(program.section(self.home.logs) for program in programs))

    @property
    def is_running(self) -> bool:
        """Whether the supervisor answers."""
        try:
            self._rpc.supervisor.getState()
        except (OSError, xmlrpc.client.Error):
            return False
        return True

    def start(self) -> None:
        """Start the supervisor in the background, with no program yet."""
        environment = {**os.environ, MARKER: self.home.marker, "COUNTINGHOUSE_HOME": str(self.home.path)}
        command = [sys.executable, "-P", "-W", "ignore", "-m", "supervisor.supervisord", "-c", str(self._configuration)]
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, start_new_session=True
        )
        if done.returncode != 0:
            raise OperationFailed(f"The supervisor did not start:\n{done.stdout}{done.stderr}")
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self.is_running:
            if time.monotonic() > deadline:
                raise OperationFailed(f"The supervisor does not answer. See {self.home.logs / 'supervisor.log'}.")
            time.sleep(0.05)

    def reconcile(self) -> set[str]:
        """Take over the configuration written last: stop what it no longer has.

        Returns: the programs that are new or changed, none of them running.
        """
        try:
            added, changed, removed = self._rpc.supervisor.reloadConfig()[0]
        except xmlrpc.client.Fault as fault:
            raise OperationFailed(f"The supervisor refuses its configuration: {fault.faultString}") from fault
        self.stop([*changed, *removed])
        for name in (*changed, *removed):
            self._rpc.supervisor.removeProcessGroup(name)
        for name in (*added, *changed):
            self._rpc.supervisor.addProcessGroup(name)
        return {*added, *changed}

    def states(self) -> dict[str, ProcessState]:
        """Return the state of every program; nothing when the supervisor is down."""
        try:
            rows: Any = self._rpc.supervisor.getAllProcessInfo()
        except (OSError, xmlrpc.client.Error):
            return {}
        return {
            row["name"]: ProcessState(
                name=row["name"],
                state=row["statename"],
                pid=row["pid"],
                seconds_up=max(0, row["now"] - row["start"]) if row["pid"] else 0,
                starts_failed=row["spawnerr"],
            )
            for row in rows
        }

    def start_programs(self, names: Iterable[str]) -> None:
        """Begin to start programs, those that run already left alone."""
        states = self.states()
        for name in names:
            if states[name].state in STATES_DOWN:
                self._rpc.supervisor.startProcess(name, False)

    def stop(self, names: Iterable[str]) -> None:
        """Stop programs, all at once: SIGTERM, their grace, SIGKILL."""
        wanted = set(names)
        for name, process in self.states().items():
            if name in wanted and process.state not in STATES_DOWN:
                try:
                    self._rpc.supervisor.stopProcess(name, False)
                except xmlrpc.client.Fault:
                    continue  # It ended by itself between the two calls.
        deadline = time.monotonic() + GRACE_SECONDS + 5
        while any(process.state not in STATES_DOWN for name, process in self.states().items() if name in wanted):
            if time.monotonic() > deadline:
                raise OperationFailed(f"Some of {', '.join(sorted(wanted))} did not stop.")
            time.sleep(0.05)

    def signal(self, name: str, number: signal.Signals) -> int:
        """Send a signal to a program's process.

        Returns: the process id it went to.   Raises: OperationFailed where the program has no process just now.
        """
        pid = self.states()[name].pid
        if pid <= 0:
            # kill(0) reaches everybody in the caller's own process group, the caller included.
            raise OperationFailed(f"{name} has no process right now.")
        os.kill(pid, number)
        return pid

    def shut_down(self) -> None:
        """Stop what still runs, and the supervisor itself."""
        try:
            pid = int(self._rpc.supervisor.getPID())
            self._rpc.supervisor.shutdown()
        except (OSError, xmlrpc.client.Error):
            return
        wait_gone([pid], timeout_seconds=GRACE_SECONDS * 4)

    @property
    def _rpc(self) -> Any:
        transport = SupervisorTransport(None, None, serverurl=f"unix://{self.home.supervisor_socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)


def _quoted(word: str) -> str:
    return '"' + _escaped(word).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _escaped(word: str) -> str:
    return word.replace("%", "%%")
