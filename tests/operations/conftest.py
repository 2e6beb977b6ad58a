"""A private PostgreSQL and RabbitMQ for the tests of operations, which also stop, kill and restart them."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from operations.home import Home
from operations.system import System


def make_system() -> System:
    """Return a system in a fresh home that the servers' own accounts can reach."""
    folder = Path(tempfile.mkdtemp(prefix="countinghouse-test-"))
    folder.chmod(0o711)
    return System(Home(folder))


@pytest.fixture(scope="session")
def servers() -> Iterator[System]:
    """A system whose servers run, and none of its services."""
    system = make_system()
    try:
        system.start_servers()
        yield system
    finally:
        system.down()
        system.destroy()


@pytest.fixture(scope="module")
def second_system() -> Iterator[System]:
    """Another system in a home of its own."""
    system = make_system()
    try:
        yield system
    finally:
        system.down()
        system.destroy()


@pytest.fixture
def own_servers(second_system: System) -> System:
    """Its servers, running; a test may do its worst to them."""
    second_system.start_servers()
    return second_system
