"""The seven services, and whom each of them calls."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """A service: its class, and the services that it calls by RPC."""

    name: str
    class_name: str
    callees: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """What `shared.runner` is given to run."""
        return f"services.{self.name}.service:{self.class_name}"


# Calls never go in a ring: DESIGN.md "Who owns what". Copies of parameters and merchants are repaired by RPC, hence
# settings and users in the rows that keep such a copy. A service gets the keys of these callees and of no other.
_TABLE = (
    Service("users", "UsersService", ("audit",)),
    Service("settings", "SettingsService"),
    Service("ledger", "LedgerService", ("settings", "users")),
    Service("cards", "CardsService", ("ledger", "settings", "users")),
    Service("tasks", "TasksService", ("ledger",)),
    Service("telegram", "TelegramService", ("settings", "users")),
    Service("audit", "AuditService"),
)
SERVICES = {service.name: service for service in _TABLE}
