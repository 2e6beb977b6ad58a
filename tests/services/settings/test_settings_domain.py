"""What a parameter can take, by its type and bounds."""

from typing import Any

import pytest

from services.settings.domain import check_value, complaints_about
from shared.contracts.settings import InvalidParameterValue, Parameter, ParameterType


def parameter(of_type: ParameterType, **bounds: Any) -> Parameter:
    return Parameter(key="tests.thing", type=of_type, default="", description="", affects=(), **bounds)


@pytest.mark.parametrize(
    ("of_type", "value"),
    [
        ("string", "anything at all, 也可以"),
        ("integer", 0),
        ("integer", -12),
        ("decimal", "10000.00"),
        ("decimal", "-0.000001"),
        ("boolean", False),
        ("duration", "90s"),
        ("duration", "7d"),
        ("timezone", "UTC"),
        ("timezone", "Asia/Shanghai"),
    ],
)
def test_value_of_its_type_is_taken_as_it_is(of_type: ParameterType, value: Any) -> None:
    assert check_value(parameter(of_type), value) is value


@pytest.mark.parametrize(
    ("of_type", "value"),
    [
        ("string", 12),
        ("string", "x" * 501),
        ("string", "nul \0"),
        ("integer", "12"),
        ("integer", 12.0),
        ("integer", True),
        ("integer", 2**63),
        ("decimal", 10000.0),
        ("decimal", 10000),
        ("decimal", "1e4"),
        ("decimal", "01.00"),
        ("decimal", "1.0000001"),
        ("decimal", "NaN"),
        ("decimal", "１２"),
        ("boolean", 0),
        ("boolean", "true"),
        ("duration", "90"),
        ("duration", "1.5h"),
        ("timezone", "Mars/Olympus"),
        ("timezone", "../etc/passwd"),
        ("choice", 1),
        ("decimal", None),
        ("string", ["a"]),
    ],
)
def test_value_of_another_type_is_refused(of_type: ParameterType, value: Any) -> None:
    with pytest.raises(InvalidParameterValue) as refusal:
        check_value(parameter(of_type), value)
    assert list(refusal.value.errors or {}) == ["value"]


@pytest.mark.parametrize(
    ("of_type", "low", "high", "inside", "outside"),
    [
        ("decimal", "0.01", "100.00", ["0.01", "9.5", "100", "100.00"], ["0", "0.009", "100.01", "1000"]),
        ("integer", 1, 9, [1, 9], [0, 10]),
        ("duration", "1m", "2h", ["60s", "120m"], ["59s", "121m", "1d"]),
        ("string", 2, 3, ["ab", "abc"], ["a", "abcd"]),
    ],
)
def test_bounds_are_compared_as_what_the_type_means(
    of_type: ParameterType, low: Any, high: Any, inside: list[Any], outside: list[Any]
) -> None:
    bounded = parameter(of_type, minimum=low, maximum=high)
    assert [v for v in inside if complaints_about(bounded, v)] == []
    assert [v for v in outside if not complaints_about(bounded, v)] == []


def test_choice_takes_only_its_choices() -> None:
    colour = parameter("choice", choices=("red", "green"))
    assert check_value(colour, "red") == "red"
    assert complaints_about(colour, "blue") == ["Must be one of: red, green."]
