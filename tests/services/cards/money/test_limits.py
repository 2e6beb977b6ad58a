"""A card's limits: what counts, what is given back, which limit refuses."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.cards.domain.limits import Limits, Usage, usage_of
from shared.contracts.ledger import LimitExceeded
from shared.errors import InvalidRequest
from shared.money import InvalidMoney

TODAY, EARLIER = True, False


@pytest.mark.parametrize(
    ("moves", "usage"),
    [
        ([], Usage(0, 0, 0)),
        ([(10, TODAY), (20, TODAY)], Usage(30, 2, 30)),
        ([(10, EARLIER), (20, TODAY)], Usage(20, 1, 30)),
        ([(30, TODAY), (-10, TODAY)], Usage(20, 1, 20)),  # gives the amount back, but not the count
        ([(30, EARLIER), (-10, TODAY)], Usage(0, 0, 20)),
        ([(-50, TODAY), (20, TODAY)], Usage(20, 1, 20)),  # money of before makes no room beyond the limit
        ([(20, EARLIER), (-50, EARLIER), (5, TODAY), (-5, TODAY), (7, TODAY)], Usage(7, 2, 7)),
    ],
)
def test_usage_is_what_went_onto_the_card_less_what_came_back(moves: list[tuple[int, bool]], usage: Usage) -> None:
    assert usage_of(moves) == usage


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # two cores for many tests at once
@given(st.lists(st.integers(-100, 100), max_size=30), st.integers(1, 100), st.integers(0, 30))
def test_a_withdrawal_never_makes_more_of_what_is_used(amounts: list[int], amount: int, place: int) -> None:
    moves = [(one, TODAY) for one in amounts]
    after = usage_of([*moves[:place], (-amount, TODAY), *moves[place:]])
    before = usage_of(moves)
    assert 0 <= after.day_amount <= before.day_amount
    assert after.month_amount <= before.month_amount
    assert after.day_count == before.day_count


@pytest.mark.parametrize(
    ("limits", "amount", "refused"),
    [
        (Limits(), 10**15, None),
        (Limits(max_amount=10), 10, None),
        (Limits(max_amount=10), 11, ("max_amount", "0.10", "0")),
        (Limits(daily_amount=150), 50, None),
        (Limits(daily_amount=150), 51, ("daily_amount", "1.50", "1.00")),
        (Limits(daily_count=4), 1, None),
        (Limits(daily_count=3), 1, ("daily_count", 3, 3)),
        (Limits(monthly_amount=350), 50, None),
        (Limits(monthly_amount=350), 51, ("monthly_amount", "3.50", "3.00")),
        (Limits(max_amount=0), 1, ("max_amount", "0", "0")),
        (Limits(10, 1, 0, 1), 11, ("max_amount", "0.10", "0")),
    ],
)
def test_the_first_limit_that_does_not_allow_a_top_up_is_named(limits: Limits, amount: int, refused: Any) -> None:
    used = Usage(day_amount=100, day_count=3, month_amount=300)
    if refused is None:
        limits.check(amount, used, currency="CNY")
        return
    with pytest.raises(LimitExceeded) as caught:
        limits.check(amount, used, currency="CNY")
    extra = caught.value.extra
    assert (extra["limit"], extra["allowed"], extra["used"]) == refused
    assert refused[0] in caught.value.detail


def test_limits_change_one_by_one_and_show_as_they_were_given() -> None:
    limits = Limits().changed({"max_amount": "12.5", "daily_count": 3}, currency="CNY")
    limits = limits.changed({"monthly_amount": "100", "daily_count": None}, currency="CNY")
    assert limits == Limits(max_amount=1250, monthly_amount=10_000)
    assert limits.view("CNY") == {
        "max_amount": "12.50", "daily_amount": None, "daily_count": None, "monthly_amount": "100.00"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "error", "field"),
    [
        ({"yearly_amount": "1"}, InvalidRequest, "limits.yearly_amount"),
        ({"max_amount": "-1"}, InvalidMoney, "limits.max_amount"),
        ({"max_amount": "1.001"}, InvalidMoney, "limits.max_amount"),
        ({"daily_amount": 5}, InvalidMoney, "limits.daily_amount"),
        ({"monthly_amount": "9" * 18}, InvalidMoney, "limits.monthly_amount"),
        ({"daily_count": -1}, InvalidRequest, "limits.daily_count"),
        ({"daily_count": "3"}, InvalidRequest, "limits.daily_count"),
        ({"daily_count": True}, InvalidRequest, "limits.daily_count"),
        ({"daily_count": 10**9}, InvalidRequest, "limits.daily_count"),
    ],
)
def test_a_limit_that_is_none_is_blamed(wanted: dict[str, Any], error: type[Exception], field: str) -> None:
    with pytest.raises(error) as caught:
        Limits().changed(wanted, currency="CNY")
    assert list(caught.value.errors) == [field]  # type: ignore[attr-defined]
