"""The operating system's accounts: who the servers run as, since PostgreSQL refuses root."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operations.errors import OperationFailed


@dataclass(frozen=True)
class Account:
    """An account of the operating system."""

    name: str
    uid: int
    gid: int

    def runs(self) -> dict[str, Any]:
        """Return the arguments of `subprocess` that make a child run as this account and nobody else."""
        if self.uid == os.geteuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give a file or folder to this account."""
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid)

    def reaches(self, folder: Path) -> bool:
        """Return whether this account may enter a folder: a home below /root, say, is closed to it."""
        probe = subprocess.run(["/bin/sh", "-c", 'cd "$0"', str(folder)], cwd="/", capture_output=True, **self.runs())
        return probe.returncode == 0


def server_account(*preferred: str) -> Account:
    """Return who a server runs as: oneself, or, for root, the first of the preferred accounts, or `nobody`."""
    if os.geteuid() != 0:
        return _account(pwd.getpwuid(os.geteuid()))
    for name in (*preferred, "nobody"):
        try:
            return _account(pwd.getpwnam(name))
        except KeyError:
            continue
    raise OperationFailed(f"Servers do not run as root, and there is no account {', '.join(preferred)} or nobody.")


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
