"""Modules, levels and the built-in roles. Source: API.md "Permissions"."""

from collections.abc import Iterable, Mapping
from typing import Final

MODULES: Final = (
    "cards",
    "ledger",
    "orders",
    "mismatches",
    "settings",
    "tasks",
    "telegram",
    "users",
    "logs",
    "merchants",
)
LEVELS: Final = ("none", "read", "operate", "admin")
_RANK: Final = {level: rank for rank, level in enumerate(LEVELS)}

BUILT_IN_ROLES: Final[dict[str, dict[str, str]]] = {
    "administrator": dict.fromkeys(MODULES, "admin"),
    "operator": dict.fromkeys(MODULES, "operate") | dict.fromkeys(("users", "settings", "logs"), "read"),
    "auditor": dict.fromkeys(MODULES, "read"),
}


def at_least(level: str, needed: str) -> bool:
    """Return whether a level includes another: admin includes operate, operate includes read."""
    return _RANK[level] >= _RANK[needed]


def allows(permissions: Mapping[str, str], needed: str) -> bool:
    """Return whether the permissions (module to level) include one written as `cards:operate`."""
    module, level = needed.split(":")
    return at_least(permissions.get(module, "none"), level)


def highest(roles: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the permissions of somebody who has all these roles: the highest level of each module."""
    held = dict.fromkeys(MODULES, "none")
    for permissions in roles:
        for module, level in permissions.items():
            if at_least(level, held[module]):
                held[module] = level
    return held
