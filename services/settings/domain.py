"""The rules of a parameter's value: its type and its bounds. Pure."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, assert_never
from zoneinfo import available_timezones

from shared.contracts.settings import InvalidParameterValue, Parameter, ParameterType, ParameterValue
from shared.times import duration_seconds

STRING_LENGTH_MAX = 500
_DECIMAL: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,6})?", re.ASCII)
_DURATION: Final = re.compile(r"(0|[1-9][0-9]{0,8})([smhd])", re.ASCII)

Comparable = Decimal | int


def check_value(parameter: Parameter, value: Any) -> ParameterValue:
    """Return the value if the parameter can take it. Nothing is converted: what is stored is what was sent.

    Raises: InvalidParameterValue, for the type before the bounds.
    """
    complaints = complaints_about(parameter, value)
    if complaints:
        raise InvalidParameterValue(" ".join(complaints), errors={"value": complaints})
    return value  # type: ignore[no-any-return]  # its type was just checked


def complaints_about(parameter: Parameter, value: Any) -> list[str]:
    """Return why the parameter cannot take the value, in sentences; none if it can."""
    if not _IS_OF_TYPE[parameter.type](value):
        return [_TYPE_COMPLAINTS[parameter.type]]
    if parameter.type == "choice":
        return [] if value in parameter.choices else [f"Must be one of: {', '.join(parameter.choices)}."]
    return _bounds_complaints(parameter, value)


def _bounds_complaints(parameter: Parameter, value: ParameterValue) -> list[str]:
    size = _size(parameter.type, value)
    what = "Its length must" if parameter.type == "string" else "Must"
    lowest, highest = parameter.minimum, parameter.maximum
    complaints = []
    if lowest is not None and size < _bound_size(parameter.type, lowest):
        complaints.append(f"{what} be {lowest} or more.")
    if highest is not None and size > _bound_size(parameter.type, highest):
        complaints.append(f"{what} be {highest} or less.")
    return complaints


def _bound_size(parameter_type: ParameterType, bound: ParameterValue) -> Comparable:
    return int(bound) if parameter_type == "string" else _size(parameter_type, bound)


def _size(parameter_type: ParameterType, value: ParameterValue) -> Comparable:
    """Return what the bounds of a type are compared with."""
    match parameter_type:
        case "decimal":
            return Decimal(value)
        case "duration":
            return duration_seconds(str(value))
        case "integer" | "boolean":
            return int(value)
        case "string" | "choice" | "timezone":
            return len(str(value))
        case _ as never:
            assert_never(never)


def _matches(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


_IS_OF_TYPE: Final[dict[ParameterType, Callable[[Any], bool]]] = {
    "string": lambda value: isinstance(value, str) and len(value) <= STRING_LENGTH_MAX and "\0" not in value,
    "integer": lambda value: type(value) is int and abs(value) < 2**63,  # True is no integer here
    "decimal": _matches(_DECIMAL),
    "boolean": lambda value: isinstance(value, bool),
    "duration": _matches(_DURATION),
    "timezone": lambda value: isinstance(value, str) and value in available_timezones(),
    "choice": lambda value: isinstance(value, str),
}
_TYPE_COMPLAINTS: Final[dict[ParameterType, str]] = {
    "string": f"Must be a string of at most {STRING_LENGTH_MAX} characters.",
    "integer": "Must be a whole number.",
    "decimal": 'Must be a decimal string such as "10000.00".',
    "boolean": "Must be true or false.",
    "duration": 'Must be a duration such as "90s", "15m", "2h" or "7d".',
    "timezone": 'Must be a time zone of the IANA database, such as "Asia/Shanghai".',
    "choice": "Must be one of the choices, as a string.",
}
