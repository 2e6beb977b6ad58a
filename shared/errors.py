"""The errors that cross a process boundary. A family fixes the meaning; a service's contract names the case.

    ServiceError
    ├── InvalidRequest      well-formed but invalid
    ├── Unauthenticated     not, or no longer, signed in
    ├── PermissionDenied    signed in, but not allowed
    ├── NotFound            unknown, or outside the caller's merchants (existence is not told)
    ├── Conflict            against the present state
    ├── PayloadTooLarge
    ├── RateLimited         try again after a while
    └── Unavailable         a service or the bus does not answer; the outcome may be unknown
        ├── UpstreamFailed      somebody else's system answered wrongly
        └── DeadlineExceeded    no answer within the caller's time

Only the gateway knows status codes (`gateway/problems.py`). A class's name in snake_case is its `code`, and the
first sentence of its docstring is its `title`.
"""

import re
from typing import Any, ClassVar, Self, TypedDict

_REGISTRY: dict[str, type["ServiceError"]] = {}


class ErrorView(TypedDict):
    """Why one of many things was refused."""

    code: str
    title: str
    detail: str
    errors: dict[str, list[str]] | None


class ServiceError(Exception):
    """Something went wrong that a caller may be told."""

    code: ClassVar[str] = "service_error"
    title: ClassVar[str] = "Something went wrong."

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" not in cls.__dict__:
            cls.code = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        if "title" not in cls.__dict__ and cls.__doc__:
            cls.title = cls.__doc__.strip().split("\n")[0]
        _REGISTRY.setdefault(cls.code, cls)

    def __init__(self, detail: str = "", *, errors: dict[str, list[str]] | None = None, **extra: Any) -> None:
        """Say what is wrong with this case.

        detail: a sentence for a person, without secrets or inner names.
        errors: field to messages, for an invalid request.
        extra: further JSON members of the problem, such as `missing` or `retry_after_seconds`.
        """
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.errors = errors
        self.extra = extra

    @property
    def family(self) -> type["ServiceError"]:
        """The class of the family that fixes this error's meaning: the nearest to the root that has one."""
        return next(c for c in type(self).__mro__ if c in FAMILIES)

    def view(self) -> "ErrorView":
        """Return the error as it stands among the results of many things."""
        return {"code": self.code, "title": self.title, "detail": self.detail, "errors": self.errors}

    def to_wire(self) -> dict[str, Any]:
        """Return the error as JSON primitives, the inverse of `from_wire`."""
        return {
            "code": self.code,
            "family": self.family.code,
            "title": self.title,
            "detail": self.detail,
            "errors": self.errors,
            "extra": self.extra,
        }

    @staticmethod
    def from_wire(wire: dict[str, Any]) -> "ServiceError":
        """Rebuild the error that another process raised: its own class where we know it, else its family."""
        known = _REGISTRY.get(wire["code"])
        error_class = known or _REGISTRY.get(wire["family"], ServiceError)
        error = error_class(wire["detail"], errors=wire.get("errors"), **wire.get("extra", {}))
        if known is None:
            error.__dict__.update(code=wire["code"], title=wire["title"])
        return error

    @classmethod
    def of_field(cls, field: str, message: str) -> Self:
        """Return the error that blames one field of the request."""
        return cls(message, errors={field: [message]})


class InvalidRequest(ServiceError):
    """The request is well-formed but invalid."""


class Unauthenticated(ServiceError):
    """You are not, or no longer, signed in."""


class PermissionDenied(ServiceError):
    """You are signed in, but not allowed to do this."""


class NotFound(ServiceError):
    """There is nothing here that you may see."""


class Conflict(ServiceError):
    """The request conflicts with the present state."""


class PayloadTooLarge(ServiceError):
    """The request is larger than this route takes."""


class RateLimited(ServiceError):
    """Too many requests; try again later."""


class Unavailable(ServiceError):
    """A part of the system does not answer right now."""


class UpstreamFailed(Unavailable):
    """A system that we depend on answered wrongly."""


class DeadlineExceeded(Unavailable):
    """No answer came within the time that the request had."""


class OutcomeUnknown(Unavailable):
    """The connection was lost while the request ran: ask again with the same Idempotency-Key."""


class InternalError(ServiceError):
    """Something went wrong on our side; the request id leads us to it."""


class IdempotencyKeyReused(Conflict):
    """This Idempotency-Key was used for another request."""


class IdempotencyInProgress(Conflict):
    """A request with this Idempotency-Key is still running."""


class IdempotencyAnswerNotKept(Conflict):
    """This request was carried out, and its answer holds a secret that is shown only once."""


FAMILIES: frozenset[type[ServiceError]] = frozenset(
    {
        InvalidRequest,
        Unauthenticated,
        PermissionDenied,
        NotFound,
        Conflict,
        PayloadTooLarge,
        RateLimited,
        Unavailable,
        UpstreamFailed,
        DeadlineExceeded,
        InternalError,
        ServiceError,
    }
)
