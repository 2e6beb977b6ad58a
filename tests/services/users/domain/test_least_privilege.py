"""The least that covers what was used."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.users.domain.least_privilege import excess_of, least_of, roles_that_give, used_levels
from shared.permissions import BUILT_IN_ROLES, LEVELS, MODULES, at_least, highest

levels = st.dictionaries(st.sampled_from(MODULES), st.sampled_from(LEVELS))
NOTHING = dict.fromkeys(MODULES, "none")


def test_highest_level_of_each_module_counts() -> None:
    used = used_levels(["cards:read", "cards:operate", "ledger:read"])
    assert used == NOTHING | {"cards": "operate", "ledger": "read"}
    assert used_levels([]) == NOTHING


def test_least_is_what_was_used_and_never_more_than_was_granted() -> None:
    granted = NOTHING | {"cards": "admin", "ledger": "read", "orders": "operate"}
    used = {"cards": "read", "ledger": "admin"}  # admin while it was held
    least = least_of(granted, used)
    assert least == NOTHING | {"cards": "read", "ledger": "read"}
    assert excess_of(granted, least) == ["cards:admin", "orders:operate"]


ROLES = {
    "all": dict.fromkeys(MODULES, "admin"),
    "reader": NOTHING | {"cards": "read", "ledger": "read"},
    "cards": NOTHING | {"cards": "read"},
    "teller": NOTHING | {"ledger": "operate", "orders": "operate"},
}


@pytest.mark.parametrize(
    ("wanted", "roles"),
    [
        ({}, []),
        ({"cards": "read"}, ["cards"]),
        ({"cards": "read", "ledger": "read"}, ["reader"]),  # one that covers more comes before two
        ({"cards": "read", "ledger": "operate", "orders": "operate"}, ["cards", "teller"]),
        ({"cards": "operate"}, None),
        ({"cards": "read", "orders": "operate"}, None),  # teller would give more
        (dict.fromkeys(MODULES, "admin"), ["all"]),
    ],
)
def test_roles_are_taken_that_give_exactly_that(wanted: dict[str, str], roles: list[str] | None) -> None:
    assert roles_that_give(NOTHING | wanted, ROLES) == roles


@given(levels, levels, st.dictionaries(st.text(max_size=3), levels, max_size=5))
def test_shrinking_covers_the_use_and_gives_nothing(
    granted: dict[str, str], used: dict[str, str], roles: dict[str, dict[str, str]]
) -> None:
    granted, used = highest([granted]), highest([used])
    least = least_of(granted, used)
    for module in MODULES:
        assert at_least(granted[module], least[module])
        assert least[module] in (granted[module], used[module])
    chosen = roles_that_give(least, roles | BUILT_IN_ROLES)
    if chosen is not None:
        assert highest([(roles | BUILT_IN_ROLES)[name] for name in chosen]) == least
