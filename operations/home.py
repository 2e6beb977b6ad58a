"""The home: the one folder that holds all state of an instance, and the names of all files in it.

state.json holds what was chosen once (ports, instances), secrets.json what must not be told, stamps.json what is
already done. Only servers/ belongs to other accounts.
"""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from operations import ports
from operations.accounts import Account, server_account
from operations.errors import AnotherCommandRuns, OperationFailed
from operations.services import SERVICES

GIVEN_NAMES = (
    "DATABASE_URL",
    "AMQP_URL",
    "RABBITMQ_MANAGEMENT_URL",
    "OUTBOUND_ALLOW",
    "PAYMENT_SIMULATOR",
    "STRIPE_API_BASE",
    "TELEGRAM_API_URL",
    "TELEGRAM_BOT_TOKEN",
    "COUNTINGHOUSE_DATABASE_PREFIX",
    "LOG_LEVEL",
    "MAX_WORKERS",
    "TRUSTED_PROXIES",
    *(f"{service.upper()}_{kind}" for service in SERVICES for kind in ("DATABASE_URL", "AMQP_URL")),
)
FAR_SERVERS = Path("/var/lib/countinghouse")
SOCKET_PATH_MAX = 100
PASSWORD_BYTES = 24


class JsonFile:
    """A small JSON object on disk, mode 0600, replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        """Return the object, empty when the file is not there."""
        try:
            content: dict[str, Any] = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        return content

    def get(self, key: str, default: Any = None) -> Any:
        """Return one value."""
        return self.read().get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Store one value."""
        write_private(self.path, json.dumps({**self.read(), key: value}, indent=1) + "\n")


class Home:
    """The paths, ports and secrets of one instance."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.path.mkdir(parents=True, exist_ok=True)
        for folder in (self.run, self.logs, self.keys):
            folder.mkdir(mode=0o700, exist_ok=True)
        self.state = JsonFile(self.path / "state.json")
        self.secrets = JsonFile(self.path / "secrets.json")
        self.stamps = JsonFile(self.path / "stamps.json")

    @property
    def run(self) -> Path:
        """The folder of sockets, pid files and the supervisor's configuration."""
        return self.path / "run"

    @property
    def logs(self) -> Path:
        """The folder of what the processes say."""
        return self.path / "logs"

    @property
    def keys(self) -> Path:
        """The folder of private keys that are files."""
        return self.path / "keys"

    @property
    def first_sign_in(self) -> Path:
        """The file that tells the first administrator's name and password."""
        return self.path / "first-sign-in.json"

    @property
    def marker(self) -> str:
        """The word in the environment of every process of this home, by which none is ever left behind."""
        return hashlib.sha256(str(self.path).encode()).hexdigest()[:16]

    @property
    def supervisor_socket(self) -> Path:
        """The supervisor's socket; in the folder of temporary files when the home's own path is too long for one."""
        near = self.run / "supervisor.sock"
        if len(str(near)) <= SOCKET_PATH_MAX:
            return near
        folder = Path(tempfile.gettempdir()) / f"countinghouse-{os.geteuid()}-{self.marker}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.geteuid():
            raise OperationFailed(f"{folder} belongs to somebody else. Choose a shorter COUNTINGHOUSE_HOME.")
        return folder / "supervisor.sock"

    def remove_far_socket(self) -> None:
        """Remove the folder among the temporary files that a long path made necessary."""
        folder = self.supervisor_socket.parent
        if folder != self.run:
            shutil.rmtree(folder)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let one command at a time change this instance."""
        with (self.run / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AnotherCommandRuns(f"Another countinghouse command is changing {self.path} right now.") from None
            yield

    def take_given(self, environment: Mapping[str, str]) -> None:
        """Keep what the environment gives, so that later commands and restarts need no environment."""
        known: dict[str, str] = self.secrets.get("given", {})
        given = known | {name: environment[name] for name in GIVEN_NAMES if environment.get(name)}
        if given != known:
            self.secrets.set("given", given)

    def given(self, name: str) -> str | None:
        """Return an address or setting that was given from outside, None where this instance makes its own."""
        assert name in GIVEN_NAMES, name
        value: str | None = self.secrets.get("given", {}).get(name)
        return value

    @property
    def identity(self) -> str:
        """A word by which this instance knows what it made on a shared server."""
        return self.password("identity")[:12]

    def account(self, server: str) -> Account:
        """Return who a server runs as, chosen when its data is first made, and kept with the data."""
        known: dict[str, str] = self.state.get("accounts", {})
        account = server_account(*([known[server]] if server in known else [server]))
        if server not in known:
            self.state.set("accounts", {**known, server: account.name})
        return account

    @property
    def has_servers(self) -> bool:
        """Whether private servers were ever made for this home."""
        return self.state.get("servers") is not None

    def servers(self, account: Account) -> Path:
        """Return the folder of the private servers' data: in the home, or far from it where the account cannot go."""
        chosen = self.state.get("servers")
        if chosen:
            return Path(chosen)
        folder = self.path / "servers"
        folder.mkdir(mode=0o711, exist_ok=True)
        if not account.reaches(folder):
            folder.rmdir()
            folder = FAR_SERVERS / self.marker
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.state.set("servers", str(folder))
        return folder

    def port(self, name: str, *, preferred: Iterable[int] = ()) -> int:
        """Return the loopback port of that name, chosen the first time and kept."""
        known: dict[str, int] = self.state.get("ports", {})
        if name not in known:
            known[name] = ports.choose(preferred=preferred, taken=known.values())
            self.state.set("ports", known)
        return known[name]

    def set_port(self, name: str, port: int) -> None:
        """Keep a port that somebody asked for.

        Raises: OperationFailed when another program listens on it.
        """
        if self.state.get("ports", {}).get(name) == port:
            return
        if not ports.is_free(port):
            raise OperationFailed(f"Port {port} is taken by another program. Choose another one, or leave --port away.")
        self.keep_port(name, port)

    def keep_port(self, name: str, port: int) -> None:
        """Keep a port that is known, without a look whether it is free on this machine."""
        self.state.set("ports", {**self.state.get("ports", {}), name: port})

    def forget_port(self, name: str) -> None:
        """Let a port be chosen anew."""
        known: dict[str, int] = self.state.get("ports", {})
        known.pop(name, None)
        self.state.set("ports", known)

    def password(self, name: str) -> str:
        """Return the secret of that name, made the first time and kept."""
        known: dict[str, str] = self.secrets.get("passwords", {})
        if name not in known:
            known[name] = secrets.token_urlsafe(PASSWORD_BYTES)
            self.secrets.set("passwords", known)
        return known[name]


def write_private(path: Path, text: str) -> None:
    """Replace a file that only its owner may read."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
