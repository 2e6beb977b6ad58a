"""The settings service's tables: every version of every parameter, which are only ever added."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.contracts.settings import BoundsView, Parameter, ParameterVersionView, ParameterView
from shared.times import rfc3339


class Base(DeclarativeBase):
    """The tables of the settings service."""


class ParameterVersion(Base):
    """One version of a parameter's value. The highest version is in force; none means the default, version 0."""

    __tablename__ = "parameter_versions"
    __table_args__ = (
        CheckConstraint("version >= 1", name="ck_parameter_versions_version"),
        CheckConstraint("length(reason) between 1 and 500", name="ck_parameter_versions_reason"),
    )

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    value: Mapped[Any] = mapped_column(JSONB)
    previous_value: Mapped[Any] = mapped_column(JSONB)
    reason: Mapped[str] = mapped_column(Text)
    actor_id: Mapped[str] = mapped_column(Text)
    actor_name: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())

    def view(self) -> ParameterVersionView:
        """Return this version as the contract shows it."""
        return {
            "key": self.key,
            "version": self.version,
            "value": self.value,
            "previous_value": self.previous_value,
            "reason": self.reason,
            "actor_id": self.actor_id,
            "actor_name": self.actor_name,
            "created_at": rfc3339(self.created_at),
        }


def parameter_view(parameter: Parameter, in_force: ParameterVersion | None) -> ParameterView:
    """Return a parameter with the version in force; None for one that nobody has changed."""
    return {
        "key": parameter.key,
        "type": parameter.type,
        "value": parameter.default if in_force is None else in_force.value,
        "version": 0 if in_force is None else in_force.version,
        "default": parameter.default,
        "description": parameter.description,
        "unit": parameter.unit,
        "bounds": bounds_view(parameter),
        "affects": list(parameter.affects),
        "updated_at": None if in_force is None else rfc3339(in_force.created_at),
        "updated_by": None if in_force is None else in_force.actor_name,
    }


def bounds_view(parameter: Parameter) -> BoundsView:
    """Return the bounds that this parameter has."""
    bounds: BoundsView = {}
    if parameter.minimum is not None:
        bounds["minimum"] = parameter.minimum
    if parameter.maximum is not None:
        bounds["maximum"] = parameter.maximum
    if parameter.choices:
        bounds["choices"] = list(parameter.choices)
    return bounds


def default_version_view(parameter: Parameter) -> ParameterVersionView:
    """Return version 0: the default that a parameter has before anybody changes it."""
    return {
        "key": parameter.key,
        "version": 0,
        "value": parameter.default,
        "previous_value": None,
        "reason": "The default.",
        "actor_id": None,
        "actor_name": None,
        "created_at": None,
    }
