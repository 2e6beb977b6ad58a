"""Where PostgreSQL and RabbitMQ come from: given addresses, private servers below the home, or a container engine."""

from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

from operations import debian, postgres, rabbitmq
from operations.bus import VHOST, bus_users
from operations.definitions import import_definitions
from operations.errors import OperationFailed
from operations.home import Home
from operations.postgres import Postgres
from operations.progress import Progress
from operations.rabbitmq import RabbitMQ
from operations.services import SERVICES
from operations.supervision import Program

T = TypeVar("T")
EPMD, RABBITMQ, POSTGRES = "epmd", "rabbitmq", "postgres"


class Servers:
    """The PostgreSQL and the RabbitMQ that an instance runs on."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.postgres = None if home.given("DATABASE_URL") else Postgres(home)
        self.rabbitmq = None if home.given("AMQP_URL") else RabbitMQ(home)

    @property
    def database_url(self) -> str:
        """The administrator's URL of PostgreSQL."""
        return self.home.given("DATABASE_URL") or _known(self.postgres).admin_url

    @property
    def amqp_url(self) -> str:
        """The administrator's URL of the broker."""
        given = self.home.given("AMQP_URL")
        if given and self.has_managed_users:
            return urlunsplit(urlsplit(given)._replace(path=f"/{VHOST}"))
        return given or _known(self.rabbitmq).admin_url

    @property
    def has_managed_users(self) -> bool:
        """Whether a given broker lets us make users of our own."""
        return self.home.given("RABBITMQ_MANAGEMENT_URL") is not None

    def user_amqp_url(self, user: str) -> str:
        """Return the AMQP URL of a service or the gateway: its own user's, or the given one, which serves all."""
        own = self.home.given(f"{user.upper()}_AMQP_URL") if user in SERVICES else None
        if own:
            return own
        if self.has_managed_users:
            parts = urlsplit(self.amqp_url)
            host = parts.netloc.rpartition("@")[2]
            return urlunsplit(parts._replace(netloc=f"{user}:{self.home.password(f'bus:{user}')}@{host}"))
        return self.home.given("AMQP_URL") or _known(self.rabbitmq).url(user)

    def make_managed_users(self) -> None:
        """Make our users on a given broker."""
        management_url = self.home.given("RABBITMQ_MANAGEMENT_URL")
        if management_url:
            users = [user for user in bus_users() if not user.tags]
            administrator = urlsplit(self.amqp_url).username or "guest"
            import_definitions(self.home, users, management_url=management_url, administrator=administrator)

    def missing_packages(self) -> list[str]:
        """Return Debian's names of the private servers whose programs are not on this machine."""
        packages = []
        if self.postgres and postgres.find_programs() is None:
            packages.append(postgres.PACKAGE)
        if self.rabbitmq and rabbitmq.find_programs() is None:
            packages.append(rabbitmq.PACKAGE)
        return packages

    def install(self, progress: Progress) -> None:
        """See to it that the programs of the private servers are on this machine."""
        packages = self.missing_packages()
        if not packages:
            return
        if not debian.can_install():
            raise OperationFailed(
                f"Missing on this machine: {' and '.join(packages)}. One of these helps:\n"
                f"  - install it (Debian, Ubuntu: sudo apt install {' '.join(packages)})\n"
                "  - run this command as root on Debian, which installs it\n"
                "  - give addresses: DATABASE_URL=postgresql://… AMQP_URL=amqp://…\n"
                "  - start a container engine with `docker compose`, and this command uses it"
            )
        with progress.step("Debian packages") as step:
            debian.install(packages)
            step.outcome = f"{' and '.join(packages)} installed"

    def prepare(self, progress: Progress) -> bool:
        """Make the cluster and the node's files.

        Returns: whether the broker's users changed.
        """
        if self.postgres and not self.postgres.exists:
            with progress.step("PostgreSQL cluster") as step:
                self.postgres.create()
                step.outcome = "made, with checksums"
        return self.rabbitmq.configure() if self.rabbitmq else False

    def programs(self) -> list[Program]:
        """Return the servers as supervised programs, in the order in which they start."""
        programs = []
        if self.rabbitmq:
            user, folder = self.rabbitmq.account.name, self.rabbitmq.folder
            environment = self.rabbitmq.environment()
            programs.append(Program(EPMD, self.rabbitmq.epmd_command(), environment, user, folder))
            programs.append(Program(RABBITMQ, self.rabbitmq.command(), environment, user, folder))
        if self.postgres:
            environment = {"LC_ALL": "C.UTF-8", "HOME": str(self.postgres.folder)}
            account, folder = self.postgres.account.name, self.postgres.folder
            programs.append(Program(POSTGRES, self.postgres.command(), environment, account, folder, stop_signal="INT"))
        return programs


def _known(server: T | None) -> T:
    assert server is not None, "neither given nor private"
    return server
