"""Which passwords are refused, and that good ones are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.users.domain.passwords import (
    PASSWORD_LENGTH_MAX,
    PASSWORD_LENGTH_MIN,
    is_common,
    new_temporary_password,
    require_strong,
)
from shared.contracts.users import WeakPassword

COMMON = [
    "password1234", "Welcome2026!!", "administrator", "Passw0rd!Passw0rd!", "123456789012", "qwertyuiop12",
    "1q2w3e4r5t6y", "1qaz2wsx3edc", "iloveyou1234", "P@ssw0rd12345", "aaaaaaaaaaaa", "abcabcabcabc", "letmein12345",
    "zaq12wsxcde3", "abcdefghijkl", "qwerty123456", "correcthorsebatterystaple", "admin@123456", "111222333444",
    "trustno1trustno1", "Summer-2026-Summer", "aliceAlice2026", "alice.password",
]  # fmt: skip
GOOD = [
    "violet kettle harbour", "Correct-horse-battery-42", "quiet river under stones", "tr0ubador&3xkcd",
    "x9!kQ2m#Lp0Z", "hunter2-is-not-mine", "我们去年夏天在海边捡石头",
]  # fmt: skip


@pytest.mark.parametrize("password", COMMON)
def test_common_password_is_refused(password: str) -> None:
    assert is_common(password, username="alice")
    with pytest.raises(WeakPassword):
        require_strong(password, username="alice")


@pytest.mark.parametrize("password", GOOD)
def test_good_password_needs_no_composition(password: str) -> None:
    require_strong(password, username="alice")


def test_password_one_character_short_is_refused() -> None:
    password = "violet kettle"[:PASSWORD_LENGTH_MIN]
    require_strong(password, username="alice")
    with pytest.raises(WeakPassword, match="at least 12"):
        require_strong(password[:-1], username="alice")


def test_endless_password_is_refused_before_it_costs_a_hash() -> None:
    with pytest.raises(WeakPassword, match="at most"):
        require_strong("violet kettle " * PASSWORD_LENGTH_MAX, username="alice")


def test_the_same_words_are_fine_for_another_user() -> None:
    assert is_common("zephyrina-zephyrina", username="zephyrina")
    assert not is_common("zephyrina-zephyrin4-x", username="bob")


def test_temporary_passwords_are_strong_and_differ() -> None:
    made = {new_temporary_password() for _ in range(100)}
    assert len(made) == 100
    for password in made:
        require_strong(password, username="alice")


@given(st.text(max_size=PASSWORD_LENGTH_MAX), st.text(max_size=40))
def test_no_text_breaks_the_check(password: str, username: str) -> None:
    is_common(password, username=username)
