"""The whole system of one home, for the command line and for tests: up, down, kill, restart, scale."""

import hashlib
import shutil
import signal
import time
from collections.abc import Iterable

import psycopg
import requests

from operations import deployment, postgres
from operations.bus import GATEWAY
from operations.errors import OperationFailed
from operations.home import Home
from operations.leftovers import end_leftovers
from operations.ports import is_free, wait_open
from operations.processes import (
    INSTANCES_MAX,
    PAYMENT_SIMULATOR,
    SCALABLE,
    SIMULATOR,
    gateway_url,
    is_of,
    processes,
    programs,
    write_orders,
)
from operations.progress import Progress
from operations.rabbitmq import consumers
from operations.servers import EPMD, POSTGRES, RABBITMQ, Servers
from operations.services import SERVICES
from operations.supervision import ROOT, STATE_RUNNING, STATES_DOWN, ProcessState, Supervisor

SERVER_TIMEOUT_SECONDS = 60
READY_TIMEOUT_SECONDS = 60
SERVER_PORTS = ("postgres", "rabbitmq", "rabbitmq_distribution", "rabbitmq_command_line", "epmd")
LOG_TAIL_CHARACTERS = 1500
OUR_CODE = ("shared", "services", "gateway", "operations", "simulators")


class System:
    """One instance: its servers, its processes and their supervisor."""

    def __init__(self, home: Home, *, progress: Progress | None = None) -> None:
        self.home = home
        self.progress = progress or Progress(is_silent=True)
        self.supervisor = Supervisor(home)
        self.servers = Servers(home)

    @property
    def url(self) -> str:
        """The address of the HTTP API and the console."""
        return gateway_url(self.home)

    # --- up ---

    def up(self) -> None:
        """Start everything that does not run, and wait until the gateway says that it is ready. Idempotent."""
        is_fresh = self._begin()
        self.wait_postgres()
        deployment.prepare_databases(self.home, self.servers, self.progress)
        self._wait_rabbitmq(is_fresh=is_fresh)
        deployment.prepare_bus(self.home, self.servers, self.progress)
        deployment.create_administrator(self.home, self.servers, self.progress)
        self._start_processes()

    def start_servers(self) -> None:
        """Provide PostgreSQL and RabbitMQ, and wait until both take connections; what runs already is left alone."""
        is_fresh = self._begin()
        self.wait_postgres()
        self._wait_rabbitmq(is_fresh=is_fresh)

    def _begin(self) -> bool:
        """Begin to start the servers, and take over what the supervisor should run.

        Returns: whether nothing of this home ran before.
        """
        self.servers.install(self.progress)
        is_fresh = not self.supervisor.is_running
        if is_fresh:
            self._end_leftovers()
            self._leave_taken_ports(*SERVER_PORTS)
        self._has_new_users = self.servers.prepare(self.progress)
        self._supervise()
        if self.servers.rabbitmq:
            self.supervisor.start_programs([EPMD])
            wait_open(self.home.port(EPMD), timeout_seconds=SERVER_TIMEOUT_SECONDS)
            self.supervisor.start_programs([RABBITMQ])
        if self.servers.postgres:
            self.supervisor.start_programs([POSTGRES])
        return is_fresh

    def _supervise(self) -> None:
        self.supervisor.configure([*self.servers.programs(), *programs(self.home)])
        if not self.supervisor.is_running:
            self.supervisor.start()
        self.supervisor.reconcile()

    def wait_postgres(self) -> None:
        """Wait until PostgreSQL takes connections, and check that it keeps what it confirms."""
        with self.progress.step("PostgreSQL") as step:
            deadline = time.monotonic() + SERVER_TIMEOUT_SECONDS
            while not self._postgres_answers(deadline):
                time.sleep(0.1)
            private = self.servers.postgres
            step.outcome = f"127.0.0.1:{private.port}" if private else "given by DATABASE_URL"

    def _postgres_answers(self, deadline: float) -> bool:
        try:
            with psycopg.connect(self.servers.database_url, connect_timeout=5) as connection:
                postgres.check_durability(connection, needs_checksums=self.servers.postgres is not None)
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise OperationFailed(f"PostgreSQL takes no connection: {error}") from error
            return False
        return True

    def _wait_rabbitmq(self, *, is_fresh: bool) -> None:
        with self.progress.step("RabbitMQ") as step:
            private = self.servers.rabbitmq
            if private is None:
                step.outcome = "given by AMQP_URL"
                return
            private.wait_ready()
            if self._has_new_users and not is_fresh:
                private.load_definitions()
            step.outcome = f"127.0.0.1:{private.port}"

    def _start_processes(self) -> None:
        with self.progress.step("Services and gateway") as step:
            names = [process.name for process in processes(self.home)]
            code = _code_fingerprint()
            if self.home.stamps.get("code") != code:
                self.supervisor.stop(names)
            self._leave_taken_ports(GATEWAY, SIMULATOR, PAYMENT_SIMULATOR)
            self._start(names)
            self.wait_ready()
            self.home.stamps.set("code", code)
            deployment.correct_first_sign_in(self.home)
            step.outcome = f"{len(names)} processes"

    def wait_ready(self, *, timeout_seconds: float = READY_TIMEOUT_SECONDS) -> None:
        """Wait until the gateway says that the bus and every service with its database are ready."""
        deadline = time.monotonic() + timeout_seconds
        while (answer := self.readiness()) != "ready":
            if time.monotonic() > deadline:
                raise OperationFailed(f"Not ready after {timeout_seconds:.0f} s: {answer}\n{self._complaints()}")
            time.sleep(0.1)

    def readiness(self) -> str:
        """Return "ready", or what the gateway says instead."""
        try:
            answer = requests.get(f"{self.url}/readyz", timeout=5)
        except requests.RequestException as error:
            return f"the gateway does not answer: {error}"
        return "ready" if answer.ok else answer.text

    def _complaints(self) -> str:
        """Return the end of the log of each process that does not run."""
        lines = []
        for process in self.supervisor.states().values():
            if process.state != STATE_RUNNING or process.seconds_up < READY_TIMEOUT_SECONDS / 2:
                log = self.home.logs / f"{process.name}.log"
                tail = log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:] if log.exists() else ""
                lines.append(
                    f"--- {process.name} is {process.state}, {process.seconds_up} s old. Its log ends:\n{tail}"
                )
        return "\n".join(lines)

    # --- while it runs ---

    def states(self) -> dict[str, ProcessState]:
        """Return the state of every process, the servers included."""
        return self.supervisor.states()

    def names_of(self, service: str) -> list[str]:
        """Return the processes of a service, or the one process of that name.

        Raises: OperationFailed when there is none.
        """
        known = self.supervisor.states()
        names = [name for name in known if is_of(name, service)]
        if not names:
            raise OperationFailed(f"There is no {service!r} here. Running: {', '.join(known) or 'nothing'}.")
        return names

    def restart(self, service: str) -> None:
        """Stop and start a service, one instance after the other, so that one of several always serves."""
        names = self.names_of(service)
        for name in names:
            with self.progress.step(f"Restart {name}"):
                self.supervisor.stop([name])
                self._start([name])
                self._wait_running(name)
                if service in SERVICES:
                    self._wait_consumers(service, len(names))

    def stop(self, service: str) -> None:
        """Stop a service, until `start` or the next `up`."""
        self.supervisor.stop(self.names_of(service))

    def start(self, service: str) -> None:
        """Start a stopped service."""
        self._start(self.names_of(service))

    def kill(self, service: str, number: signal.Signals = signal.SIGKILL) -> list[int]:
        """Send a signal to all processes of a service; after a SIGKILL the supervisor starts them anew.

        Returns: the process ids that it went to.
        """
        return [self.supervisor.signal(name, number) for name in self.names_of(service)]

    def scale(self, service: str, count: int) -> None:
        """Run so many instances of a service; the gateway has as many workers in its one process."""
        if service not in SCALABLE:
            raise OperationFailed(f"{service!r} cannot be scaled. These can: {', '.join(SCALABLE)}.")
        if not 1 <= count <= INSTANCES_MAX:
            raise OperationFailed(f"A service has 1 to {INSTANCES_MAX} instances.")
        self.home.state.set("scale", {**self.home.state.get("scale", {}), service: count})
        if not self.supervisor.is_running:
            return
        self._supervise()
        if service == GATEWAY:
            self.restart(GATEWAY)
            return
        names = [process.name for process in processes(self.home) if process.service == service]
        self._start(names)
        self._wait_consumers(service, count)

    def _start(self, names: Iterable[str]) -> None:
        write_orders(self.home, self.servers)
        self.supervisor.start_programs(names)

    def _wait_running(self, name: str) -> None:
        deadline = time.monotonic() + SERVER_TIMEOUT_SECONDS
        while self.supervisor.states()[name].state != STATE_RUNNING:
            if time.monotonic() > deadline:
                raise OperationFailed(f"{name} did not start. See {self.home.logs / (name + '.log')}.")
            time.sleep(0.1)

    def _wait_consumers(self, service: str, count: int) -> None:
        """Wait until so many instances of a service take calls from the bus."""
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while (there := consumers(self.servers.amqp_url, f"rpc.{service}")) < count:
            if time.monotonic() > deadline:
                raise OperationFailed(f"{there} of {count} instances of {service} serve.\n{self._complaints()}")
            time.sleep(0.2)

    def move_gateway(self, port: int) -> None:
        """Let the gateway listen on another port, now or with the next `up`."""
        if port == self.home.port(GATEWAY, preferred=[port]):
            return
        self.home.set_port(GATEWAY, port)
        if self.supervisor.is_running:
            self.supervisor.stop([GATEWAY])

    # --- down ---

    def down(self) -> None:
        """Stop everything of this home and leave no process behind, whatever state it is in."""
        if self.supervisor.is_running:
            states = self.supervisor.states()
            servers = {EPMD, POSTGRES, RABBITMQ}
            if any(name not in servers and process.state not in STATES_DOWN for name, process in states.items()):
                with self.progress.step("Stop gateway and services"):
                    self.supervisor.stop([GATEWAY])
                    self.supervisor.stop(states.keys() - servers)
            with self.progress.step("Stop servers"):
                self.supervisor.stop([POSTGRES, RABBITMQ])
                self.supervisor.stop([EPMD])
                self.supervisor.shut_down()
        self._end_leftovers()
        self.home.remove_far_socket()

    def destroy(self) -> None:
        """Delete all data of this home, which must be down."""
        shutil.rmtree(self.home.state.get("servers", ""), ignore_errors=True)
        shutil.rmtree(self.home.path, ignore_errors=True)

    def _end_leftovers(self) -> None:
        end_leftovers(self.home, self.servers.postgres.pid() if self.servers.postgres else None)

    def _leave_taken_ports(self, *names: str) -> None:
        """Let those ports be chosen anew that somebody else took while our own program did not run."""
        states = self.supervisor.states()
        for name, port in self.home.state.get("ports", {}).items():
            runs = name in states and states[name].state not in STATES_DOWN
            if name in names and not runs and not is_free(port):
                self.home.forget_port(name)


def _code_fingerprint() -> str:
    """Return a hash of the code that the processes run, so that `up` restarts them when it changed."""
    digest = hashlib.sha256()
    for folder in OUR_CODE:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".html", ".css", ".js"):
                digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()
