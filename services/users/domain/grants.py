"""Nobody grants more than they hold: permissions and merchants are compared here, and nowhere else."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shared.contracts.users import GrantExceedsOwn, Merchants
from shared.errors import InvalidRequest
from shared.passport import Passport
from shared.permissions import LEVELS, MODULES, at_least, highest


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What somebody holds, or is to be given. `merchants` is None for all of them."""

    permissions: Mapping[str, str]
    merchants: frozenset[str] | None

    def exceeds(self, other: "Grant") -> list[str]:
        """Return what this grant has and the other lacks, as words for a person; empty when it has nothing more."""
        beyond = [
            f"{module}:{level}"
            for module, level in self.permissions.items()
            if not at_least(other.permissions.get(module, "none"), level)
        ]
        if other.merchants is not None:
            foreign = ["all merchants"] if self.merchants is None else sorted(self.merchants - other.merchants)
            beyond.extend(foreign)
        return beyond


def grant_of_roles(roles: Iterable[Mapping[str, str]], *, merchants: frozenset[str] | None) -> Grant:
    """Return the grant of somebody who has all these roles."""
    return Grant(permissions=highest(roles), merchants=merchants)


def require_within(given: Grant, own: Grant) -> None:
    """Refuse to give, or to act on, more than one holds oneself.

    Raises: GrantExceedsOwn, naming what is beyond.
    """
    beyond = given.exceeds(own)
    if beyond:
        raise GrantExceedsOwn(f"You do not hold this yourself: {', '.join(beyond[:5])}.", beyond=beyond[:20])


def grant_of_caller(passport: Passport) -> Grant:
    """Return what the caller holds."""
    return Grant(permissions=passport.permissions, merchants=passport.merchants)


def grant_of_permissions(permissions: Mapping[str, str], *, merchants: Iterable[str] | None = ()) -> Grant:
    """Return the grant of permissions as they stand. merchants: None for all."""
    return Grant(permissions=permissions, merchants=None if merchants is None else frozenset(merchants))


def complete_permissions(permissions: Mapping[str, str]) -> dict[str, str]:
    """Return the permissions with every module in them, `none` where nothing was said.

    Raises: InvalidRequest for an unknown module or level.
    """
    for module, level in permissions.items():
        if module not in MODULES:
            raise InvalidRequest.of_field("permissions", f"Unknown module: {module[:40]!r}.")
        if level not in LEVELS:
            raise InvalidRequest.of_field("permissions", f"A level is one of {', '.join(LEVELS)}.")
    return highest([permissions])


def merchant_set(merchants: Merchants) -> frozenset[str] | None:
    """Return the contract's merchants as a set, None for all."""
    return None if merchants == "all" else frozenset(merchants)


def merchant_list(*, sees_all: bool, merchant_ids: Iterable[str]) -> Merchants:
    """Return merchants as the contract writes them."""
    return "all" if sees_all else sorted(merchant_ids)
