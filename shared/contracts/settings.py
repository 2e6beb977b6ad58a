"""What others may know of the settings service: the registry of parameters, views, errors, events.

A parameter stands here only while some service reads it; `affects` names exactly those services.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal, NotRequired, TypedDict

from shared.errors import Conflict, InvalidRequest, NotFound
from shared.events import Event

ParameterValue = str | int | bool
ParameterType = Literal["string", "integer", "decimal", "boolean", "duration", "timezone", "choice"]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One thing that can be set while the system runs, and the services that read it.

    Values are JSON primitives: a decimal is a string such as "10000.00", a duration one such as "90s", "15m", "2h"
    or "7d". minimum, maximum: of the value; for a string, of its length; both ends are allowed.
    """

    key: str
    type: ParameterType
    default: ParameterValue
    description: str
    affects: tuple[str, ...]
    unit: str | None = None
    minimum: ParameterValue | None = None
    maximum: ParameterValue | None = None
    choices: tuple[str, ...] = ()


PARAMETERS: Final[dict[str, Parameter]] = {
    parameter.key: parameter
    for parameter in (
        Parameter(
            key="cards.device_grace_seconds",
            type="integer",
            default=120,
            description="How much later than `cards.device_heartbeat_seconds` a device may be heard of before it "
            "counts as offline, which is told once.",
            affects=("cards",),
            unit="seconds",
            minimum=0,
            maximum=86_400,
        ),
        Parameter(
            key="cards.device_heartbeat_seconds",
            type="integer",
            default=60,
            description="How often a device bound to a card is to send a heartbeat; up to this silence it is online.",
            affects=("cards",),
            unit="seconds",
            minimum=1,
            maximum=86_400,
        ),
        Parameter(
            key="cards.max_cards_per_device",
            type="integer",
            default=5,
            description="How many cards a device may be bound to at once. A lower value ends no binding.",
            affects=("cards",),
            unit="cards",
            minimum=1,
            maximum=1_000,
        ),
        Parameter(
            key="cards.max_devices_per_card",
            type="integer",
            default=5,
            description="How many devices may be bound to a card at once. A lower value ends no binding.",
            affects=("cards",),
            unit="devices",
            minimum=1,
            maximum=1_000,
        ),
        Parameter(
            key="ledger.callback_retention",
            type="duration",
            default="180d",
            description="How long callbacks of payment platforms, and what these answered when they were asked, are "
            "kept. What a pending order or an open mismatch needs stays.",
            affects=("ledger",),
            minimum="7d",
            maximum="3650d",
        ),
        Parameter(
            key="ledger.correction_approval_threshold",
            type="decimal",
            default="1000.00",
            description="A correction of a mismatch that is about more than this absolute amount waits for the "
            "approval of a second person. 0 has each of them wait that is about money at all.",
            affects=("ledger",),
            unit="amount, in the order's own currency",
            minimum="0",
            maximum="1000000000000.00",
        ),
        Parameter(
            key="ledger.large_change_threshold",
            type="decimal",
            default="10000.00",
            description="A balance change of this absolute amount or more counts as large: the ledger tells of it, "
            "and a merchant's group whose rule names no threshold of its own hears of it.",
            affects=("ledger", "telegram"),
            unit="amount, in the change's own currency",
            minimum="0.01",
            maximum="1000000000000.00",
        ),
        Parameter(
            key="ledger.order_fee_percent",
            type="decimal",
            default="0",
            description="What an order costs, in percent of its amount, where its channel has no rate of its own. "
            "It is fixed when the order is made, and charged when it settles.",
            affects=("ledger",),
            unit="percent",
            minimum="0",
            maximum="100",
        ),
        Parameter(
            key="ledger.reconciliation_grace",
            type="duration",
            default="24h",
            description="How long what does not fit between our orders and a payment platform's records may still come "
            "right: until then it is counted as expected, and after it as a mismatch. Amounts that differ and payments "
            "made twice do not wait.",
            affects=("ledger",),
            minimum="0s",
            maximum="30d",
        ),
        Parameter(
            key="ledger.retention_months",
            type="integer",
            default=0,
            description="Entries of a month that ended more than this many months ago leave the balance log for a "
            "compressed archive, which still proves. 0 keeps them in the log for ever.",
            affects=("ledger",),
            unit="months",
            minimum=0,
            maximum=240,
        ),
        Parameter(
            key="modules.cards.enabled",
            type="boolean",
            default=True,
            description="Whether cards are used. Switched off, all their routes answer 409 `module_disabled`, no "
            "device is missed, and nothing is lost.",
            affects=("cards",),
        ),
        Parameter(
            key="system.timezone",
            type="timezone",
            default="UTC",
            description="The time zone whose calendar days `date=`, `month=` and the daily limits of cards mean.",
            affects=("cards", "ledger"),
            unit="IANA time zone",
        ),
    )
}


class ParameterNotFound(NotFound):
    """There is no parameter with this key."""


class ParameterVersionNotFound(NotFound):
    """This parameter has no such version."""


class InvalidParameterValue(InvalidRequest):
    """This parameter cannot take this value."""


class StaleVersion(Conflict):
    """Somebody has changed this since you read it."""


class BoundsView(TypedDict):
    """What a value must keep within; a member that does not apply is left out."""

    minimum: NotRequired[ParameterValue]
    maximum: NotRequired[ParameterValue]
    choices: NotRequired[list[str]]


class ParameterView(TypedDict):
    """A parameter and its value in force. `version` 0 is the default, which nobody has changed yet."""

    key: str
    type: ParameterType
    value: ParameterValue
    version: int
    default: ParameterValue
    description: str
    unit: str | None
    bounds: BoundsView
    affects: list[str]
    updated_at: str | None
    updated_by: str | None


class ParameterVersionView(TypedDict):
    """One version of a parameter's value: what, who, when and why."""

    key: str
    version: int
    value: ParameterValue
    previous_value: ParameterValue | None
    reason: str
    actor_id: str | None
    actor_name: str | None
    created_at: str | None


class ParameterPreview(TypedDict):
    """What a change would do, without doing it."""

    key: str
    is_valid: bool
    errors: list[str]
    is_change: bool
    current: ParameterValue
    proposed: Any
    affects: list[str]


@dataclass(frozen=True, kw_only=True)
class ParameterChanged(Event):
    """A parameter has a new version; `affects` are the services that read it."""

    service = "settings"
    resource_type = "parameter"

    key: str
    value: ParameterValue
    version: int
    affects: list[str]
    changes: dict[str, dict[str, ParameterValue]]
    reason: str

    def resource_id(self) -> str:
        """Return the parameter's key."""
        return self.key
