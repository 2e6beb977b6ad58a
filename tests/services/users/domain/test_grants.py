"""Nobody grants more than they hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.users.domain.grants import Grant, complete_permissions, require_within
from shared.contracts.users import GrantExceedsOwn
from shared.errors import InvalidRequest
from shared.permissions import BUILT_IN_ROLES, LEVELS, MODULES

ADMINISTRATOR = Grant(permissions=BUILT_IN_ROLES["administrator"], merchants=None)
OPERATOR_OF_A = Grant(permissions=BUILT_IN_ROLES["operator"], merchants=frozenset({"mer_a"}))

PERMISSIONS = st.dictionaries(st.sampled_from(MODULES), st.sampled_from(LEVELS))
MERCHANTS = st.none() | st.frozensets(st.sampled_from(["mer_a", "mer_b", "mer_c"]))
GRANTS = st.builds(lambda p, m: Grant(permissions=p, merchants=m), PERMISSIONS, MERCHANTS)


@pytest.mark.parametrize(
    ("given_grant", "beyond"),
    [
        (Grant(permissions={"cards": "operate"}, merchants=frozenset({"mer_a"})), []),
        (Grant(permissions={"cards": "admin"}, merchants=frozenset()), ["cards:admin"]),
        (Grant(permissions={"users": "operate"}, merchants=frozenset()), ["users:operate"]),
        (Grant(permissions={}, merchants=frozenset({"mer_a", "mer_b"})), ["mer_b"]),
        (Grant(permissions={}, merchants=None), ["all merchants"]),
    ],
)
def test_grant_beyond_ones_own_is_named(given_grant: Grant, beyond: list[str]) -> None:
    assert given_grant.exceeds(OPERATOR_OF_A) == beyond


def test_grant_beyond_ones_own_is_refused() -> None:
    with pytest.raises(GrantExceedsOwn) as caught:
        require_within(ADMINISTRATOR, OPERATOR_OF_A)
    assert "cards:admin" in caught.value.extra["beyond"]


@given(GRANTS)
def test_everybody_may_grant_what_they_hold(grant: Grant) -> None:
    assert grant.exceeds(grant) == []
    assert grant.exceeds(ADMINISTRATOR) == []


@given(GRANTS, GRANTS, GRANTS)
def test_what_is_handed_on_never_grows(first: Grant, second: Grant, third: Grant) -> None:
    if not third.exceeds(second) and not second.exceeds(first):
        assert not third.exceeds(first)


def test_permissions_are_completed_with_none() -> None:
    assert complete_permissions({"cards": "read"}) == dict.fromkeys(MODULES, "none") | {"cards": "read"}


@pytest.mark.parametrize("permissions", [{"kitchen": "read"}, {"cards": "write"}])
def test_unknown_module_or_level_is_refused(permissions: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        complete_permissions(permissions)
