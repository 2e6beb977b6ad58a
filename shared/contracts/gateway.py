"""What others may know of the gateway: the records of calls and of its own failures, which audit keeps."""

from dataclasses import dataclass
from typing import ClassVar

from shared.events import Event


@dataclass(frozen=True, kw_only=True)
class _OfCall:
    """What is told of every call. The body, the query and the headers are not: they may hold secrets.

    route: with its parameters' names, such as `/api/v1/cards/{card_id}`; empty when there is no such route.
    path: what was asked for, cut to 300 characters.
    outcome: success, denied (401, 403), refused (another 4xx) or failed (5xx).
    code: the problem's code; None for a success.
    permission: what the route asks for, such as `cards:operate`; None where it asks for nothing more than a caller.
    """

    service: ClassVar[str] = "gateway"
    resource_type: ClassVar[str] = "call"

    method: str
    route: str
    path: str
    status: int
    duration_ms: float
    outcome: str
    code: str | None = None
    merchant_id: str | None = None
    permission: str | None = None

    def resource_id(self) -> str:
        """Return nothing: the envelope names the resource that the route is about."""
        return ""


@dataclass(frozen=True, kw_only=True)
class ApiCalled(_OfCall, Event):
    """Somebody called the API."""

    is_replayed: bool = False


@dataclass(frozen=True, kw_only=True)
class SystemErrorOccurred(_OfCall, Event):
    """A call ended with a status of 500 or above; `error` is the class of what went wrong."""

    error: str = ""
