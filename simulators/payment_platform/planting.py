"""Weeks of orders and payments in which mismatches of the six kinds are planted, so that what is found can be compared.

The same seed makes the same world. Our side is a plan of orders, the platform's are payments; `planted` says what does
not fit between them, and all else does.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from simulators.payment_platform.state import Payment

KINDS = (
    "missing_local_update", "amount_mismatch", "status_mismatch", "missing_upstream", "missing_local",
    "duplicate_upstream",
)  # fmt: skip
AMOUNT_MINOR_MAX = 50_000
BOTH_FAILED, BOTH_PENDING = 0.02, 0.01


@dataclass(frozen=True, kw_only=True)
class PlannedOrder:
    """An order that the ledger is to have: a recharge, in `status` since `settled_at` where it was paid."""

    order_no: str
    channel: str
    amount: str
    currency: str
    status: str
    settled_at: str | None


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A mismatch that is to be found, on the day on which it shows."""

    kind: str
    channel: str
    day: str
    order_no: str | None
    upstream_ref: str | None


@dataclass(kw_only=True)
class Plan:
    """Both sides, and what does not fit."""

    orders: list[PlannedOrder] = field(default_factory=list)
    payments: list[Payment] = field(default_factory=list)
    planted: list[Planted] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON primitives."""
        return {name: [asdict(row) for row in getattr(self, name)] for name in ("orders", "payments", "planted")}


@dataclass(kw_only=True)
class _Case:
    """One order and its payment while they still agree."""

    order_no: str
    upstream_ref: str
    channel: str
    amount: int
    at: datetime
    status: str = "settled"


def make_plan(
    *,
    channels: Sequence[str],
    first_day: date,
    days: int,
    orders: int,
    rate: float = 0.001,
    seed: int = 1,
    currency: str = "CNY",
    zone_name: str = "UTC",
) -> Plan:
    """Return a world in which `rate` of the orders have a mismatch, each kind as often as the others and at least once.

    first_day: of calendar days of the zone; what happens near midnight is part of it.
    """
    chance = random.Random(seed)
    cases = [_case(chance, n, channels, first_day, days, seed, zone_name) for n in range(orders)]
    wanted = max(round(orders * rate), len(KINDS))
    if wanted > orders:
        raise ValueError(f"{len(KINDS)} kinds of mismatches need {len(KINDS)} orders")
    odd = {id(case): KINDS[n % len(KINDS)] for n, case in enumerate(chance.sample(cases, wanted))}
    plan = Plan()
    for number, case in enumerate(cases):
        _play(plan, chance, case, odd.get(id(case)), number, currency, zone_name)
    return plan


def _case(
    chance: random.Random, n: int, channels: Sequence[str], first_day: date, days: int, seed: int, zone_name: str
) -> _Case:
    day = first_day + timedelta(days=n % days)
    midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone_name)).astimezone(UTC)
    return _Case(
        order_no=f"S{seed}-{n:07}",
        upstream_ref=f"U{seed}-{n:07}",
        channel=channels[(n // days) % len(channels)],
        amount=chance.randint(100, AMOUNT_MINOR_MAX),
        at=midnight + timedelta(seconds=chance.randint(1, 82_700)),
    )


def _play(
    plan: Plan, chance: random.Random, case: _Case, kind: str | None, number: int, currency: str, zone_name: str
) -> None:
    """Add a case to the plan, as it is or with its mismatch."""
    if kind is None:
        draw = chance.random()
        is_odd = draw < BOTH_FAILED + BOTH_PENDING
        case.status = ("failed" if draw < BOTH_FAILED else "pending") if is_odd else "settled"
    theirs = {"settled": "success"}.get(case.status, case.status)
    amount = case.amount
    if kind == "missing_local_update":
        case.status = "pending"
    elif kind == "amount_mismatch":
        amount += chance.choice((-1, 1, 100, 5_000))
        amount = amount or 1
    elif kind == "status_mismatch":
        case.status, theirs = ("settled", "failed") if number % 2 else ("failed", "success")
    if kind != "missing_local":
        plan.orders.append(
            PlannedOrder(
                order_no=case.order_no,
                channel=case.channel,
                amount=_text(case.amount),
                currency=currency,
                status=case.status,
                settled_at=_time(case.at) if case.status == "settled" else None,
            )
        )
    if kind != "missing_upstream":
        plan.payments.append(_payment(case, theirs, amount, currency))
    upstream_ref = None if kind == "missing_upstream" else case.upstream_ref
    if kind == "duplicate_upstream":
        upstream_ref = f"{case.upstream_ref}-2"
        again = _payment(case, theirs, amount, currency)
        later = _time(case.at + timedelta(seconds=60))
        plan.payments.append(Payment(**asdict(again) | {"upstream_ref": upstream_ref, "time": later}))
    if kind is not None:
        day = case.at.astimezone(ZoneInfo(zone_name)).date().isoformat()
        named = {"order_no": case.order_no, "upstream_ref": upstream_ref}
        plan.planted.append(Planted(kind=kind, channel=case.channel, day=day, **named))


def _payment(case: _Case, status: str, amount: int, currency: str) -> Payment:
    return Payment(
        account=case.channel,
        upstream_ref=case.upstream_ref,
        order_no=case.order_no,
        amount=_text(amount),
        currency=currency,
        status=status,
        fee=_text(amount * 6 // 1000) if status == "success" else "0",
        time=_time(case.at),
    )


def _text(minor: int) -> str:
    return f"{minor // 100}.{minor % 100:02}"


def _time(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
