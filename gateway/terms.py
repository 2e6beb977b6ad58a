"""What a route asks of a request, declared above its view and enforced before the view runs.

A route that declares none of `needs`, `signed_in` and `public` does not start: nothing is open by forgetting.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from shared.permissions import LEVELS, MODULES

DEADLINE_SECONDS_DEFAULT = 10.0
BODY_BYTES_MAX_DEFAULT = 1024 * 1024

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The terms of one route.

    permission: as `cards:operate`; None asks only for a caller who is signed in.
    """

    is_declared: bool = False
    is_public: bool = False
    permission: str | None = None
    is_open_to_expired_password: bool = False
    moves_money: bool = False
    takes_body: bool = False
    deadline_seconds: float = DEADLINE_SECONDS_DEFAULT
    body_bytes_max: int = BODY_BYTES_MAX_DEFAULT


UNDECLARED = Terms()


def terms_of(view: Callable[..., Any]) -> Terms:
    """Return the terms declared above a view."""
    terms = getattr(view, "terms", None)
    return terms if isinstance(terms, Terms) else UNDECLARED


def declare(view: View, **changes: Any) -> View:
    """Add to a view's terms. Decorators in between keep them, since functools.wraps copies attributes."""
    view.__dict__["terms"] = replace(terms_of(view), **changes)
    return view


def needs(permission: str) -> Callable[[View], View]:
    """Open the route to callers who hold the permission, written as `cards:operate`."""
    module, _, level = permission.partition(":")
    if module not in MODULES or level not in LEVELS[1:]:
        raise ValueError(f"no such permission: {permission}")
    return lambda view: declare(view, is_declared=True, permission=permission)


def signed_in(view: View) -> View:
    """Open the route to everyone who is signed in."""
    return declare(view, is_declared=True)


def public(view: View) -> View:
    """Open the route to everyone."""
    return declare(view, is_declared=True, is_public=True)


def open_to_expired_password(view: View) -> View:
    """Let callers in who must change their password first."""
    return declare(view, is_open_to_expired_password=True)


def moves_money(view: View) -> View:
    """Require an Idempotency-Key: 422 `idempotency_key_required` without."""
    return declare(view, moves_money=True)


def within(*, seconds: float) -> Callable[[View], View]:
    """Give requests of this route another deadline than the default."""
    return lambda view: declare(view, deadline_seconds=seconds)


def body_up_to(*, megabytes: int) -> Callable[[View], View]:
    """Let bodies of this route be larger than the default."""
    return lambda view: declare(view, body_bytes_max=megabytes * 1024 * 1024)
