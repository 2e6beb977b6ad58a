"""Free loopback ports, chosen below the range that the kernel hands out to outgoing connections."""

import random
import socket
import time
from collections.abc import Collection, Iterable

from operations.errors import OperationFailed

LOOPBACK = "127.0.0.1"
CHOICE = range(20000, 32000)
GATEWAY_CHOICE = range(8080, 8100)


def is_free(port: int) -> bool:
    """Return whether a server could listen on a loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def is_open(port: int) -> bool:
    """Return whether something listens on a loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


def choose(*, preferred: Iterable[int] = (), taken: Collection[int] = ()) -> int:
    """Return a free port: the first of the preferred ones, else any."""
    candidates = [*preferred, *random.sample(CHOICE, 200)]
    for port in candidates:
        if port not in taken and is_free(port):
            return port
    raise OperationFailed("No free loopback port was found between 20000 and 32000.")


def wait_open(port: int, *, timeout_seconds: float) -> None:
    """Wait until something listens on a loopback port."""
    deadline = time.monotonic() + timeout_seconds
    while not is_open(port):
        if time.monotonic() > deadline:
            raise OperationFailed(f"Nothing listens on 127.0.0.1:{port} after {timeout_seconds:.0f} s.")
        time.sleep(0.05)
