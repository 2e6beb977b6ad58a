"""The private PostgreSQL cluster of a home: where its programs are, its first configuration, how it is started.

It listens on 127.0.0.1 only, has no socket, asks everyone for a SCRAM password, and keeps checksums (R17).
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import psycopg

from operations.accounts import Account
from operations.errors import OperationFailed
from operations.home import Home
from operations.ports import LOOPBACK

ADMIN = "countinghouse_admin"
PACKAGE = "postgresql"
VERSION_MIN = 15
MUST_BE_ON = ("fsync", "synchronous_commit", "full_page_writes")
CONFIGURATION = """
# Written by countinghouse. Money is in here: fsync, synchronous_commit and full_page_writes stay on (R17).
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 300
shared_buffers = 256MB
max_wal_size = 2GB
password_encryption = 'scram-sha-256'
fsync = on
synchronous_commit = on
full_page_writes = on
log_line_prefix = '%m [%p] %u@%d '
log_error_verbosity = terse
timezone = 'UTC'
"""


def find_programs(version: str | None = None) -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest on this machine or exactly the version asked for."""
    for folder in _candidates():
        found = _version(folder)
        if found and int(found) >= VERSION_MIN and version in (None, found):
            return folder
    return None


def _candidates() -> Iterable[Path]:
    debian = Path("/usr/lib/postgresql")
    yield from sorted(debian.glob("*/bin"), key=lambda folder: folder.parent.name.zfill(3), reverse=True)
    yield from sorted(Path("/opt/homebrew/opt").glob("postgresql@*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    if on_path:
        yield Path(on_path).resolve().parent


def _version(programs: Path) -> str | None:
    if not all((programs / name).exists() for name in ("initdb", "postgres")):
        return None
    answer = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True)
    words = answer.stdout.split()
    return words[2].split(".")[0] if len(words) > 2 else None


class Postgres:
    """The cluster below one home."""

    def __init__(self, home: Home) -> None:
        self.home = home

    @cached_property
    def account(self) -> Account:
        """Who the server runs as. Asked only once its packages, which may bring that account, are there."""
        return self.home.account("postgres")

    @cached_property
    def folder(self) -> Path:
        """Where the server's data lies."""
        return self.home.servers(self.account) / "postgres"

    @property
    def data(self) -> Path:
        """The cluster's data."""
        return self.folder / "data"

    @property
    def port(self) -> int:
        """The loopback port of this home's server."""
        return self.home.port("postgres")

    @property
    def admin_url(self) -> str:
        """The URL of the superuser."""
        return f"postgresql://{ADMIN}:{self.home.password(ADMIN)}@{LOOPBACK}:{self.port}/postgres"

    @property
    def exists(self) -> bool:
        """Whether the cluster was made already."""
        return (self.data / "PG_VERSION").exists()

    def create(self) -> None:
        """Make the cluster, unless it is there. A half-made one, left by a crash, is made anew."""
        if self.exists:
            return
        programs = self._programs()
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.account.own(self.folder)
        draft = self.folder / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        with tempfile.NamedTemporaryFile("w", dir=self.folder) as password:
            password.write(self.home.password(ADMIN))
            password.flush()
            self.account.own(Path(password.name))
            options = ["--auth=scram-sha-256", "--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8"]
            names = ["--pgdata", str(draft), "--username", ADMIN, "--pwfile", password.name]
            self._run([str(programs / "initdb"), *names, *options])
        with (draft / "postgresql.conf").open("a") as configuration:
            configuration.write(CONFIGURATION)
        draft.rename(self.data)

    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground."""
        return [str(self._programs() / "postgres"), "-D", str(self.data), "-p", str(self.port)]

    def pid(self) -> int | None:
        """Return the server's process id by its own pid file, None when that process is not this cluster's."""
        if not self.home.has_servers:
            return None
        try:
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            os.kill(pid, 0)
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
        except (OSError, ValueError, IndexError):
            return None
        return pid if str(self.data) in command else None

    def _programs(self) -> Path:
        version = (self.data / "PG_VERSION").read_text().strip() if self.exists else None
        programs = find_programs(version)
        if programs is None:
            wanted = version or f"{VERSION_MIN} or newer"
            raise OperationFailed(f"The programs of PostgreSQL {wanted} are not on this machine.")
        return programs

    def _run(self, command: list[str]) -> None:
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, **self.account.runs()
        )
        if done.returncode != 0:
            raise OperationFailed(f"{Path(command[0]).name} failed:\n{done.stdout}{done.stderr}")


def check_durability(connection: psycopg.Connection[tuple[str, ...]], *, needs_checksums: bool) -> None:
    """Refuse a server that may lose what it has confirmed (R17).

    needs_checksums: for our own cluster; of a given server it is its owner's choice.
    """
    names = [*MUST_BE_ON, *(["data_checksums"] if needs_checksums else [])]
    for name in names:
        row = connection.execute("select current_setting(%s)", [name]).fetchone()
        if row is None or row[0] in ("off", "local"):
            raise OperationFailed(f"PostgreSQL runs with {name} off and could lose confirmed money. Turn it on.")
