"""The private RabbitMQ node of a home: where its programs are, its configuration, its users and their permissions.

Users come with the definitions that the node loads when it boots, so `guest` never exists (R29). AMQP, distribution
and epmd listen on 127.0.0.1, on ports of this home, under a cookie of its own: two nodes never meet.
"""

import json
import os
import secrets
import shutil
import subprocess
import time
from functools import cached_property
from pathlib import Path

import amqp
from kombu.utils.url import url_to_parts

from operations.accounts import Account
from operations.bus import ADMIN, VHOST, bus_users
from operations.definitions import definitions
from operations.errors import OperationFailed
from operations.home import Home, write_private
from operations.ports import LOOPBACK

PACKAGE = "rabbitmq-server"
NODE = "countinghouse@localhost"
BOOT_TIMEOUT_SECONDS = 90
CONFIGURATION = """# Written by countinghouse.
listeners.tcp.local = 127.0.0.1:{port}
load_definitions = {definitions}
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 200MB
log.file = false
log.console = true
log.console.level = warning
"""


def find_programs() -> Path | None:
    """Return the folder of RabbitMQ's own scripts; Debian's wrappers round them insist on the system-wide node."""
    for folder in sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"), reverse=True):
        if (folder / "rabbitmq-server").exists():
            return folder
    on_path = shutil.which("rabbitmq-server")
    if on_path and not on_path.startswith(("/usr/sbin", "/sbin")):
        return Path(on_path).resolve().parent
    return None


class RabbitMQ:
    """The node below one home."""

    def __init__(self, home: Home) -> None:
        self.home = home

    @cached_property
    def account(self) -> Account:
        """Who the server runs as. Asked only once its packages, which may bring that account, are there."""
        return self.home.account("rabbitmq")

    @cached_property
    def folder(self) -> Path:
        """Where the server's data lies."""
        return self.home.servers(self.account) / "rabbitmq"

    @property
    def definitions(self) -> Path:
        """The document of users and permissions that the node loads when it boots."""
        return self.folder / "definitions.json"

    @property
    def port(self) -> int:
        """The loopback port of this home's server."""
        return self.home.port("rabbitmq")

    @property
    def admin_url(self) -> str:
        """The URL of the node's administrator, who declares the topology and reads dead letters."""
        return self.url(ADMIN)

    def url(self, user: str) -> str:
        """Return the AMQP URL of a user."""
        return f"amqp://{user}:{self.home.password(f'bus:{user}')}@{LOOPBACK}:{self.port}/{VHOST}"

    def configure(self) -> bool:
        """Write the node's files.

        Returns: whether users or permissions differ from the files before.
        """
        for folder in (self.folder, *(self.folder / name for name in ("mnesia", "log", "home"))):
            folder.mkdir(mode=0o700, exist_ok=True)
            self.account.own(folder)
        cookie = self.folder / "home" / ".erlang.cookie"
        if not cookie.exists():
            self._write(cookie, secrets.token_hex(16).upper(), mode=0o400)
        self._write(self.folder / "rabbitmq.conf", CONFIGURATION.format(port=self.port, definitions=self.definitions))
        self._write(self.folder / "enabled_plugins", "[].\n")
        self._write(self.folder / "rabbitmq-env.conf", "")
        before = self.definitions.read_text() if self.definitions.exists() else ""
        now = json.dumps(definitions(self.home, bus_users()), indent=1)
        self._write(self.definitions, now)
        return before != now

    def environment(self) -> dict[str, str]:
        """Return what makes the node, and the commands that talk to it, fully private."""
        distribution = self.home.port("rabbitmq_distribution")
        command_line = self.home.port("rabbitmq_command_line")
        return {
            "HOME": str(self.folder / "home"),
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": str(self.home.port("epmd")),
            "RABBITMQ_NODENAME": NODE,
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "rabbitmq.pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CTL_DIST_PORT_MIN": str(command_line),
            "RABBITMQ_CTL_DIST_PORT_MAX": str(command_line),
            # With input "allowed" the script becomes the server instead of its parent, so that a kill hits the server.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_START_ARGS": "-noinput",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
            "RABBITMQ_CTL_ERL_ARGS": "-start_epmd false",
        }

    def command(self) -> list[str]:
        """Return the command that runs the node in the foreground."""
        return [str(self._programs() / "rabbitmq-server")]

    def epmd_command(self) -> list[str]:
        """Return the command that runs Erlang's port mapper in the foreground.

        Started before the node, which otherwise leaves a daemon of its own behind.
        """
        packaged = sorted(str(path) for path in Path("/usr/lib/erlang").glob("erts-*/bin/epmd"))
        epmd = shutil.which("epmd") or next(iter(packaged), None)
        if epmd is None:
            raise OperationFailed("Erlang's epmd is not on this machine, though RabbitMQ is.")
        return [epmd, "-port", str(self.home.port("epmd")), "-address", LOOPBACK]

    def wait_ready(self) -> None:
        """Wait until the administrator can sign in."""
        deadline = time.monotonic() + BOOT_TIMEOUT_SECONDS
        while True:
            try:
                connect(self.admin_url).close()
            except (OSError, amqp.AMQPError) as error:
                if time.monotonic() > deadline:
                    raise OperationFailed(f"RabbitMQ did not start within {BOOT_TIMEOUT_SECONDS} s: {error}") from error
                time.sleep(0.1)
            else:
                return

    def load_definitions(self) -> None:
        """Take over changed users and permissions without a restart."""
        command = [str(self._programs() / "rabbitmqctl"), "--quiet", "import_definitions", str(self.definitions)]
        environment = {"PATH": os.environ.get("PATH", ""), **self.environment()}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, **self.account.runs()
        )
        if done.returncode != 0:
            raise OperationFailed(f"rabbitmqctl import_definitions failed:\n{done.stdout}{done.stderr}")

    def _programs(self) -> Path:
        programs = find_programs()
        if programs is None:
            raise OperationFailed("RabbitMQ's programs are not on this machine.")
        return programs

    def _write(self, path: Path, text: str, *, mode: int = 0o600) -> None:
        if path.exists() and path.read_text() == text:
            return
        write_private(path, text)
        path.chmod(mode)
        self.account.own(path)


def connect(url: str, *, confirm_publish: bool = False) -> amqp.Connection:
    """Return an open connection to a broker, given as an AMQP URL."""
    parts = url_to_parts(url)
    connection = amqp.Connection(
        host=f"{parts.hostname}:{parts.port or 5672}",
        userid=parts.username or "guest",
        password=parts.password or "guest",
        virtual_host=parts.path or "/",
        connect_timeout=5,
        read_timeout=10,
        write_timeout=10,
        confirm_publish=confirm_publish,
    )
    connection.connect()
    return connection


def consumers(url: str, queue: str) -> int:
    """Return how many processes take messages from a queue."""
    with connect(url) as connection:
        count: int = connection.channel().queue_declare(queue, passive=True).consumer_count
    return count
