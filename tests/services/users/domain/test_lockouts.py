"""How long failed sign-ins lock."""

import pytest

from services.users.domain.lockouts import (
    BY_USERNAME,
    BY_USERNAME_AND_ADDRESS,
    EVERY_ADDRESS,
    address_of,
    name_key,
    policy_for,
    unknown_name_key,
)


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 0), (7, 0), (8, 15), (9, 30), (10, 60), (13, 480), (14, 900), (15, 900), (10**6, 900)]
)
def test_lock_grows_with_each_failure_and_has_a_most(failures: int, seconds: int) -> None:
    assert BY_USERNAME_AND_ADDRESS.lock_seconds(failures) == seconds


def test_lock_of_a_whole_name_is_softer() -> None:
    assert BY_USERNAME.lock_seconds(BY_USERNAME_AND_ADDRESS.failures_free) == 0
    assert BY_USERNAME.lock_seconds(10**6) < BY_USERNAME_AND_ADDRESS.lock_seconds(10**6)
    assert policy_for("alice", EVERY_ADDRESS) is BY_USERNAME
    assert policy_for("alice", "203.0.113.7") is BY_USERNAME_AND_ADDRESS


@pytest.mark.parametrize(
    ("ip", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:bbbb::2", "2001:db8:1:2::/64"),
        ("", "unknown"),
        ("not an address", "unknown"),
    ],
)
def test_address_is_what_one_person_commands(ip: str, address: str) -> None:
    assert address_of(ip) == address


def test_letter_case_and_spaces_do_not_make_another_name() -> None:
    assert name_key(" Alice ") == name_key("ALICE") == "alice"


def test_name_that_nobody_has_is_counted_without_being_kept() -> None:
    typed = name_key("My-Password-In-The-Wrong-Field")
    assert typed not in unknown_name_key(typed)
    assert unknown_name_key(typed) == unknown_name_key(typed) != unknown_name_key(name_key("somebody"))
    assert len(unknown_name_key(typed)) < 10  # too short a hash to tell which password it was
