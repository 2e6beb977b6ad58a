"""A PostgreSQL and a RabbitMQ that live as long as a test run or a measurement, and leave nothing behind."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from operations.home import Home
from operations.progress import Progress
from operations.system import System


@contextmanager
def throwaway_servers(progress: Progress, *, purpose: str) -> Iterator[dict[str, str]]:
    """Give DATABASE_URL and AMQP_URL of fresh private servers, which are stopped and deleted whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix=f"countinghouse-{purpose}-"))
    folder.chmod(0o711)  # the servers' own accounts must pass
    system = System(Home(folder), progress=progress)
    try:
        system.start_servers()
        yield {"DATABASE_URL": system.servers.database_url, "AMQP_URL": system.servers.amqp_url}
    finally:
        system.down()
        system.destroy()
