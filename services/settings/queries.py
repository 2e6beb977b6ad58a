"""Reads of the settings service: parameters in force, and their versions."""

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from services.settings.domain import complaints_about
from services.settings.models import ParameterVersion, default_version_view, parameter_view
from shared.contracts.settings import (
    PARAMETERS,
    Parameter,
    ParameterNotFound,
    ParameterPreview,
    ParameterValue,
    ParameterView,
)
from shared.paging import LIMIT_MAX, InvalidCursor, Page, decode_cursor, encode_cursor


def known_parameter(key: str) -> Parameter:
    """Return the registry's parameter of this key. Raises: ParameterNotFound."""
    parameter = PARAMETERS.get(key)
    if parameter is None:
        raise ParameterNotFound
    return parameter


def version_in_force(session: Session, key: str) -> ParameterVersion | None:
    """Return the newest version of a parameter; None for one that nobody has changed."""
    newest_first = select(ParameterVersion).where(ParameterVersion.key == key).order_by(ParameterVersion.version.desc())
    return session.scalars(newest_first.limit(1)).first()


def list_parameters(session: Session, *, limit: int = LIMIT_MAX, cursor: str | None = None) -> Page:
    """Return a page of the registry's parameters with their values in force, by key. Raises: InvalidCursor."""
    after = "" if cursor is None else str(decode_cursor(cursor, length=1)[0])
    following = sorted(key for key in PARAMETERS if key > after)
    keys = following[:limit]
    newest = (
        select(ParameterVersion)
        .where(ParameterVersion.key.in_(keys))
        .order_by(ParameterVersion.key, ParameterVersion.version.desc())
        .ext(distinct_on(ParameterVersion.key))
    )
    in_force = {version.key: version for version in session.scalars(newest)}
    items = [parameter_view(PARAMETERS[key], in_force.get(key)) for key in keys]
    return {"items": items, "next_cursor": encode_cursor([keys[-1]]) if len(following) > limit else None}


def get_parameter(session: Session, *, key: str) -> ParameterView:
    """Return one parameter with its value in force. Raises: ParameterNotFound."""
    return parameter_view(known_parameter(key), version_in_force(session, key))


def preview_parameter(session: Session, *, key: str, value: ParameterValue) -> ParameterPreview:
    """Say whether the parameter could take the value, and which services it would reach. Changes nothing.

    Raises: ParameterNotFound.
    """
    current = get_parameter(session, key=key)
    complaints = complaints_about(known_parameter(key), value)
    is_change = not complaints and value != current["value"]
    return {
        "key": key,
        "is_valid": not complaints,
        "errors": complaints,
        "is_change": is_change,
        "current": current["value"],
        "proposed": value,
        "affects": current["affects"] if is_change else [],
    }


def list_parameter_versions(session: Session, *, key: str, limit: int, cursor: str | None) -> Page:
    """Return a page of a parameter's versions, newest first; the last of all is the default, version 0.

    Raises: ParameterNotFound.
    """
    parameter = known_parameter(key)
    versions = select(ParameterVersion).where(ParameterVersion.key == key).order_by(ParameterVersion.version.desc())
    if cursor is not None:
        versions = versions.where(ParameterVersion.version < _version_in(cursor))
    items = [version.view() for version in session.scalars(versions.limit(limit + 1))]
    if len(items) <= limit:
        items.append(default_version_view(parameter))
    has_more = len(items) > limit
    page = items[:limit]
    return {"items": page, "next_cursor": encode_cursor([page[-1]["version"]]) if has_more else None}


def _version_in(cursor: str) -> int:
    (version,) = decode_cursor(cursor, length=1)
    if not isinstance(version, int):
        raise InvalidCursor.of_field("cursor", InvalidCursor.title)
    return version
