"""What any process may tell of itself."""

from dataclasses import dataclass

from shared.events import Event


@dataclass(frozen=True, kw_only=True)
class SystemErrorOccurred(Event):
    """Something broke that should not have: `error` says what, without secrets."""

    service = "system"
    resource_type = "system"

    error: str
    traceback: str = ""
