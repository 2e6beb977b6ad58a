"""What a service process has once, for all of its extensions: the confirmed publisher, the database."""

from typing import Any

from nameko.extensions import SharedExtension

from shared.config import process_config
from shared.publishing import ConfirmedPublisher


class Publisher(SharedExtension):
    """The process's confirmed publisher, shared by the outbox relay and by what gives messages up."""

    def setup(self) -> None:
        config = process_config()
        self.confirmed = ConfirmedPublisher(config.amqp_url, name=f"{config.instance}-publisher")

    def start(self) -> None:
        self.confirmed.start()

    def stop(self) -> None:
        self.confirmed.stop()


def database_of(container: Any) -> Any:
    """Return the database that a service declares under this name, as each does."""
    return next(d for d in container.dependencies if d.attr_name == "database")
