"""What the settings service can do to a parameter: change it, and go back to an earlier version."""

from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.settings.domain import check_value
from services.settings.models import ParameterVersion, parameter_view
from services.settings.queries import known_parameter, version_in_force
from shared import outbox
from shared.contracts.settings import (
    Parameter,
    ParameterChanged,
    ParameterValue,
    ParameterVersionNotFound,
    ParameterView,
    StaleVersion,
)
from shared.passport import Passport


def change_parameter(
    session: Session, passport: Passport, *, key: str, value: Any, reason: str, expected_version: int
) -> ParameterView:
    """Put a new version of a parameter in force.

    expected_version: the version that the caller saw; 0 is the default.
    Returns: ParameterView. A value that is in force already makes no new version and no event.
    Raises, in order: ParameterNotFound, InvalidParameterValue, StaleVersion.
    Emits: ParameterChanged.
    """
    parameter = known_parameter(key)
    checked = check_value(parameter, value)
    return _put_in_force(session, passport, parameter, checked, reason=reason, expected_version=expected_version)


def roll_back_parameter(
    session: Session, passport: Passport, *, key: str, version: int, reason: str, expected_version: int | None = None
) -> ParameterView:
    """Put the value of an earlier version in force again, as a new version.

    version: 0 goes back to the default.
    expected_version: the version that the caller saw; None for whichever is in force now.
    Returns: ParameterView.
    Raises, in order: ParameterNotFound, ParameterVersionNotFound, InvalidParameterValue (the bounds may be narrower
    than they were), StaleVersion.
    Emits: ParameterChanged.
    """
    parameter = known_parameter(key)
    checked = check_value(parameter, _value_of(session, parameter, version))
    if expected_version is None:
        in_force = version_in_force(session, key)
        expected_version = 0 if in_force is None else in_force.version
    return _put_in_force(session, passport, parameter, checked, reason=reason, expected_version=expected_version)


def _value_of(session: Session, parameter: Parameter, version: int) -> ParameterValue:
    if version == 0:
        return parameter.default
    kept = session.get(ParameterVersion, (parameter.key, version))
    if kept is None:
        raise ParameterVersionNotFound
    value: ParameterValue = kept.value
    return value


def _put_in_force(
    session: Session,
    passport: Passport,
    parameter: Parameter,
    value: ParameterValue,
    *,
    reason: str,
    expected_version: int,
) -> ParameterView:
    in_force = version_in_force(session, parameter.key)
    current = parameter_view(parameter, in_force)
    if current["version"] != expected_version:
        raise _stale(current["version"])
    if value == current["value"]:
        return current
    version = _add_version(session, passport, parameter, value, current=current, reason=reason)
    outbox.add(
        session,
        ParameterChanged(
            key=parameter.key,
            value=value,
            version=version.version,
            affects=list(parameter.affects),
            changes={"value": {"before": current["value"], "after": value}},
            reason=reason,
        ),
    )
    return parameter_view(parameter, version)


def _add_version(
    session: Session,
    passport: Passport,
    parameter: Parameter,
    value: ParameterValue,
    *,
    current: ParameterView,
    reason: str,
) -> ParameterVersion:
    # The primary key decides between two who saw the same version: the second waits for the first, and inserts none.
    statement = (
        insert(ParameterVersion)
        .values(
            key=parameter.key,
            version=current["version"] + 1,
            value=value,
            previous_value=current["value"],
            reason=reason,
            actor_id=passport.actor_id,
            actor_name=passport.actor_name,
        )
        .on_conflict_do_nothing()
        .returning(ParameterVersion)
    )
    added = session.scalars(statement).first()
    if added is None:
        raise _stale(current["version"] + 1)
    return added


def _stale(version: int) -> StaleVersion:
    return StaleVersion(f"The version in force is {version}: read it again.", version=version)
