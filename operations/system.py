"""The whole system of one home, for the command line and for tests: up, down, kill, restart, scale."""

import os
import shutil
import signal
import time
from pathlib import Path

import psycopg

from operations import postgres
from operations.errors import OperationFailed
from operations.home import Home
from operations.ports import is_free, wait_open
from operations.progress import Progress
from operations.servers import EPMD, POSTGRES, RABBITMQ, Given, Servers
from operations.supervision import GRACE_SECONDS, Program, Supervisor, processes_of, wait_gone

SERVER_PORTS = ("postgres", "rabbitmq", "rabbitmq_distribution", "rabbitmq_command_line", "epmd")
SERVER_TIMEOUT_SECONDS = 60
KILL_TIMEOUT_SECONDS = 10


class System:
    """One instance: its servers, its processes and their supervisor."""

    def __init__(self, home: Home, *, progress: Progress | None = None, given: Given | None = None) -> None:
        self.home = home
        self.progress = progress or Progress(is_silent=True)
        self.supervisor = Supervisor(home)
        self.servers = Servers(home, given or Given.remembered(home))

    def start_servers(self) -> None:
        """Provide PostgreSQL and RabbitMQ and wait until both take connections; what runs already is left alone."""
        self.servers.install(self.progress)
        is_fresh = not self.supervisor.is_running
        if is_fresh:
            self._end_leftovers()
            self._leave_taken_ports()
        has_new_users = self.servers.prepare(self.progress)
        self._supervise(self.servers.programs())
        if self.servers.postgres:
            with self.progress.step("PostgreSQL") as step:
                self.supervisor.start_programs([POSTGRES])
                self._wait_postgres()
                step.outcome = f"127.0.0.1:{self.servers.postgres.port}"
        if self.servers.rabbitmq:
            with self.progress.step("RabbitMQ") as step:
                self.supervisor.start_programs([EPMD])
                wait_open(self.home.port("epmd"), timeout_seconds=SERVER_TIMEOUT_SECONDS)
                self.supervisor.start_programs([RABBITMQ])
                self.servers.rabbitmq.wait_ready()
                if has_new_users and not is_fresh:
                    self.servers.rabbitmq.load_definitions()
                step.outcome = f"127.0.0.1:{self.servers.rabbitmq.port}"

    def down(self) -> None:
        """Stop everything of this home and leave no process behind, whatever state it is in."""
        if self.supervisor.is_running:
            with self.progress.step("Stop"):
                servers = {program.name for program in self.servers.programs()}
                self.supervisor.stop(name for name in self.supervisor.states() if name not in servers)
                self.supervisor.stop([POSTGRES, RABBITMQ])
                self.supervisor.shut_down()
        self._end_leftovers()

    def destroy(self) -> None:
        """Delete all data of this home, which must be down."""
        shutil.rmtree(self.home.state.get("servers", ""), ignore_errors=True)
        shutil.rmtree(self.home.path, ignore_errors=True)

    def _supervise(self, programs: list[Program]) -> None:
        self.supervisor.configure(programs)
        if not self.supervisor.is_running:
            self.supervisor.start()
        self.supervisor.reconcile()

    def _wait_postgres(self) -> None:
        deadline = time.monotonic() + SERVER_TIMEOUT_SECONDS
        while True:
            try:
                with psycopg.connect(self.servers.database_url, connect_timeout=5) as connection:
                    postgres.check_durability(connection, needs_checksums=self.servers.postgres is not None)
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    raise OperationFailed(f"PostgreSQL takes no connection: {error}") from error
                time.sleep(0.1)
            else:
                return

    def _leave_taken_ports(self) -> None:
        """Choose anew the ports of our own servers that somebody else took while they were down."""
        for name, port in self.home.state.get("ports", {}).items():
            if name in SERVER_PORTS and not is_free(port):
                self.home.forget_port(name)

    def _end_leftovers(self) -> None:
        """End what a killed supervisor left: every process that carries this home's marker, and the cluster's own."""
        left = [pid for pid in processes_of(self.home) if pid not in _ancestors()]
        cluster = self.servers.postgres.pid() if self.servers.postgres else None
        if cluster:
            _signal([cluster], signal.SIGINT)
        _signal([pid for pid in left if pid != cluster], signal.SIGTERM)
        everyone = [*left, *([cluster] if cluster else [])]
        if not wait_gone(everyone, timeout_seconds=GRACE_SECONDS):
            _signal(everyone, signal.SIGKILL)
            wait_gone(everyone, timeout_seconds=KILL_TIMEOUT_SECONDS)


def _ancestors() -> set[int]:
    """Return this process and those that started it: a test inside of a supervised process must not end itself."""
    pids, pid = set(), os.getpid()
    while pid > 1:
        pids.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            break
    return pids


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
