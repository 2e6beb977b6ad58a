"""Install PostgreSQL and RabbitMQ from Debian's packages, and leave no system-wide server behind."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from operations.errors import OperationFailed

POLICY = Path("/usr/sbin/policy-rc.d")
CLUSTERS = Path("/etc/postgresql")
OUTPUT_TAIL = 2000


def can_install() -> bool:
    """Return whether this machine has Debian's package manager and we may use it."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(packages: Sequence[str]) -> None:
    """Install packages whose servers must neither start now nor with the machine.

    Raises: OperationFailed with the end of the package manager's output.
    """
    clusters_before = _clusters()
    with _no_service_starts():
        _run(["apt-get", "update", "-qq"])
        _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages])
    for version, name in sorted(_clusters() - clusters_before):
        _run(["pg_dropcluster", version, name])
    if shutil.which("systemctl"):
        for package in packages:
            # Without systemd as the machine's first process this fails, and then nothing would start it anyway.
            subprocess.run(["systemctl", "disable", "--quiet", package], capture_output=True)


def _clusters() -> set[tuple[str, str]]:
    return {(folder.parent.name, folder.name) for folder in CLUSTERS.glob("*/*")}


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Answer "not allowed" to packages that ask whether they may start their server, as Debian's policy has it."""
    if POLICY.exists():
        kept = POLICY.with_name("policy-rc.d.countinghouse")
        POLICY.rename(kept)
    else:
        kept = None
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
        if kept:
            kept.rename(POLICY)


def _run(command: Sequence[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        output = (done.stdout + done.stderr)[-OUTPUT_TAIL:]
        raise OperationFailed(f"{' '.join(command)} failed:\n{output}")
