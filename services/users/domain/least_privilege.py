"""What was granted against what was used, and the least that covers it. Pure."""

from collections.abc import Iterable, Mapping
from typing import Final

from shared.permissions import LEVELS, MODULES, at_least, highest

WINDOW_DAYS: Final = 90


def used_levels(permissions: Iterable[str]) -> dict[str, str]:
    """Return the level that was used of each module, from permissions written as `cards:operate`."""
    return highest([{module: level} for module, _, level in (p.partition(":") for p in permissions)])


def least_of(granted: Mapping[str, str], used: Mapping[str, str]) -> dict[str, str]:
    """Return the levels that cover what was used, and are nowhere above what is granted."""
    return {module: min(granted.get(module, "none"), used.get(module, "none"), key=LEVELS.index) for module in MODULES}


def excess_of(granted: Mapping[str, str], least: Mapping[str, str]) -> list[str]:
    """Return the granted levels that nobody needed, as `cards:admin`."""
    return [f"{module}:{level}" for module, level in granted.items() if not at_least(least[module], level)]


def roles_that_give(wanted: Mapping[str, str], roles: Mapping[str, Mapping[str, str]]) -> list[str] | None:
    """Return existing roles, by name, that together give exactly these levels; None where there are none.

    roles: name to permissions. Of those that give nothing beyond, the one that covers most comes first.
    """
    lacking = {module for module, level in wanted.items() if level != "none"}
    fitting = {
        name: {module for module in lacking if permissions.get(module, "none") == wanted[module]}
        for name, permissions in roles.items()
        if all(at_least(wanted[module], level) for module, level in permissions.items())
    }
    chosen: list[str] = []
    while lacking:
        best = max(sorted(fitting), key=lambda name: len(fitting[name] & lacking), default=None)
        if best is None or not fitting[best] & lacking:
            return None
        chosen.append(best)
        lacking -= fitting[best]
    return sorted(chosen)
