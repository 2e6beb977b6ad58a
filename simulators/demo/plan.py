"""What the demonstration tells: thirty days of orders, what was planted to be found in them, and what is done about it.

Pure: the same for each demonstration, but for the day that it ends before.
"""

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from shared.money import format_minor, fraction_digits, parse_minor

SEED: Final = 2026
MERCHANTS: Final = {"AURORA": "Aurora Mobile", "BOREALIS": "Borealis Games", "CIRRUS": "Cirrus Travel"}
DAYS: Final = 30
USERS_PER_MERCHANT: Final = 6
ORDERS_PER_DAY: Final = 8
OPENING_HOUR: Final = 8
HOURS: Final = (9, 12, 16, 20)
CNY, USDT = "CNY", "USDT"
KIND_WEIGHTS: Final = {"recharge": 8, "withdraw": 3, "payment": 5, "purchase": 4, "renewal": 2, "paid_reset": 1}
PREFIXES: Final = {
    "recharge": "R", "withdraw": "W", "payment": "P", "purchase": "B", "renewal": "N", "paid_reset": "T",
}  # fmt: skip
BY_CHANNEL: Final = ("recharge", "withdraw")
REFUNDABLE: Final = ("payment", "purchase", "renewal")
CALLS_BACK: Final = "wechat"
CHANNELS_OF: Final = {CNY: ("alipay", CALLS_BACK, "unionpay"), USDT: ("trc20",)}


@dataclass(frozen=True, kw_only=True)
class Channel:
    """A payment platform: how it is registered, and how it writes its statements."""

    code: str
    name: str
    config: dict[str, Any]


CHANNELS: Final = (
    Channel(
        code="alipay",
        name="Alipay",
        config={
            "fee_percent": "0.6",
            "currency": CNY,
            "timezone": "Asia/Shanghai",
            "date_format": "%Y-%m-%d %H:%M:%S",
            "columns": {
                "upstream_ref": "交易号",
                "order_no": "商户订单号",
                "amount": "金额",
                "fee": "手续费",
                "status": "交易状态",
                "time": "完成时间",
            },
            "statuses": {"交易成功": "success", "交易关闭": "failed", "等待付款": "pending"},
        },
    ),
    Channel(code=CALLS_BACK, name="WeChat Pay", config={}),
    Channel(code="unionpay", name="UnionPay", config={"delimiter": ";", "decimal_sign": ","}),
    Channel(code="trc20", name="USDT on Tron", config={"currency": USDT}),
)


@dataclass(frozen=True, kw_only=True)
class Plant:
    """What does not fit between an order and its platform's record, and what is done about it."""

    kind: str
    act: str = "leave"
    reason: str = ""
    off_by: str = "0.03"


# By the day's number. The days before CLOSED_DAYS are settled in the end, and closed.
CLOSED_DAYS: Final = 15
PLANTS: Final[dict[int, Plant]] = {
    2: Plant(kind="missing_local_update", act="upstream", reason="The callback was lost."),
    3: Plant(kind="amount_mismatch", act="upstream", reason="A coupon of the platform."),
    5: Plant(kind="duplicate_upstream", act="local", reason="The platform gave the second payment back."),
    6: Plant(kind="missing_upstream", act="reconcile", reason="Paid in cash at the counter."),
    8: Plant(kind="missing_local", act="upstream", reason="Ordered by phone, and never entered here."),
    9: Plant(kind="status_mismatch", act="upstream", reason="The bank took it back."),
    11: Plant(kind="missing_local", act="ignore", reason="A test payment of the platform's own staff."),
    12: Plant(kind="amount_mismatch", act="local", reason="A typing error at the platform, which it confirmed."),
    16: Plant(kind="amount_mismatch", act="reverse", reason="A coupon of the platform."),
    17: Plant(kind="amount_mismatch"),
    18: Plant(kind="amount_mismatch"),
    19: Plant(kind="amount_mismatch", act="propose", reason="Half of it was charged back.", off_by="1300.00"),
    20: Plant(kind="missing_local_update"),
    21: Plant(kind="status_mismatch"),
    23: Plant(kind="missing_upstream"),
    24: Plant(kind="missing_local"),
    26: Plant(kind="duplicate_upstream"),
    28: Plant(kind="amount_mismatch"),
    29: Plant(kind="missing_local_update"),
}
# Where no past days can be lived through: what is found without waiting for what may still come right.
PLANTS_TODAY: Final[dict[int, Plant]] = {
    1: Plant(kind="amount_mismatch", act="upstream", reason="A coupon of the platform."),
    2: Plant(kind="amount_mismatch", act="local", reason="A typing error at the platform, which it confirmed."),
    3: Plant(kind="duplicate_upstream", act="local", reason="The platform gave the second payment back."),
    4: Plant(kind="amount_mismatch", act="ignore", reason="A test payment of the platform's own staff."),
    5: Plant(kind="amount_mismatch", act="propose", reason="Half of it was charged back.", off_by="1300.00"),
    6: Plant(kind="amount_mismatch"),
    7: Plant(kind="duplicate_upstream"),
}


@dataclass(frozen=True, kw_only=True)
class PlannedOrder:
    """An order to make, when, and how it ends."""

    order_no: str
    at: datetime
    merchant_code: str
    user_id: str
    kind: str
    amount: str
    currency: str
    channel: str | None
    end: str = "settled"
    plant: Plant | None = None

    @property
    def upstream_ref(self) -> str | None:
        """The platform's own number of its payment."""
        return f"{self.channel}-{self.order_no}" if self.channel else None

    @property
    def half(self) -> str:
        """About half of the amount."""
        return format_minor(parse_minor(self.amount, self.currency) // 2, self.currency)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a platform says of a payment."""

    channel: str
    upstream_ref: str
    order_no: str
    amount: str
    currency: str
    status: str
    at: datetime


def plan_past(last_day: date, zone_name: str) -> list[PlannedOrder]:
    """Plan the orders of thirty days up to the last one, in their order.

    They never overdraw anybody: each user begins with a recharge that all that follows is covered by.
    """
    chance = random.Random(SEED)
    first_day = last_day - timedelta(days=DAYS - 1)
    orders = list(_openings(_instant(first_day, OPENING_HOUR, zone_name)))
    for number in range(DAYS):
        day = first_day + timedelta(days=number)
        moments = [_instant(day, hour, zone_name) for hour in HOURS for _ in range(ORDERS_PER_DAY // len(HOURS))]
        plants = {len(moments) // 2: PLANTS[number]} if number in PLANTS else {}
        orders += _orders_at(chance, moments, f"{day:%m%d}", plants)
    return orders


def plan_today(now: datetime, *, is_alone: bool) -> list[PlannedOrder]:
    """Plan the orders of today.

    is_alone: there are no past days, so that the openings and what does not fit have to be of today.
    """
    chance = random.Random(SEED + 1)
    if not is_alone:
        return list(_orders_at(chance, [now] * ORDERS_PER_DAY, f"{now:%m%d}", {}))
    return [*_openings(now), *_orders_at(chance, [now] * 3 * ORDERS_PER_DAY, f"{now:%m%d}", PLANTS_TODAY)]


def users_of(merchant_code: str) -> list[str]:
    """Return the users of a merchant."""
    return [f"{merchant_code.lower()}-{number:02}" for number in range(1, USERS_PER_MERCHANT + 1)]


def _openings(at: datetime) -> Iterator[PlannedOrder]:
    """Yield the recharges that everybody begins with, the first user of a merchant in two currencies."""
    for code in MERCHANTS:
        for number, user_id in enumerate(users_of(code)):
            channels = CHANNELS_OF[CNY]
            yield _order("recharge", f"{code[0]}{number}", at, code, user_id, "4000.00", CNY, channels[number % 3])
            if number == 0:
                yield _order("recharge", f"{code[0]}U", at, code, user_id, "900.000000", USDT, "trc20")


def _orders_at(
    chance: random.Random, moments: Iterable[datetime], name: str, plants: Mapping[int, Plant]
) -> Iterator[PlannedOrder]:
    """Yield an order for each moment; those of these numbers with what is planted there."""
    for number, at in enumerate(moments):
        plant = plants.get(number)
        kind = "recharge" if plant else chance.choices(list(KIND_WEIGHTS), list(KIND_WEIGHTS.values()))[0]
        code, user = chance.choice(list(MERCHANTS)), chance.randrange(USERS_PER_MERCHANT)
        currency = USDT if user == 0 and kind in ("recharge", "payment") and not plant else CNY
        amount = Decimal(chance.randint(2000, 30000)) / 100
        if plant and Decimal(plant.off_by) > amount:
            amount = 2 * Decimal(plant.off_by)
        text = format_minor(int(amount * 10 ** fraction_digits(currency)), currency)
        channel = chance.choice(CHANNELS_OF[currency]) if kind in BY_CHANNEL else None
        order = _order(kind, f"{name}-{number}", at, code, users_of(code)[user], text, currency, channel)
        yield replace(order, plant=plant) if plant else replace(order, end=_end_of(chance, kind))


def _end_of(chance: random.Random, kind: str) -> str:
    if kind in REFUNDABLE:
        return chance.choices(["settled", "failed", "refunded", "partly"], [85, 5, 5, 5])[0]
    return chance.choices(["settled", "failed"], [94, 6])[0]


def _order(
    kind: str,
    suffix: str,
    at: datetime,
    merchant_code: str,
    user_id: str,
    amount: str,
    currency: str,
    channel: str | None,
) -> PlannedOrder:
    return PlannedOrder(
        order_no=f"{PREFIXES[kind]}{SEED}-{suffix}",
        at=at,
        merchant_code=merchant_code,
        user_id=user_id,
        kind=kind,
        amount=amount,
        currency=currency,
        channel=channel,
    )


def _instant(day: date, hour: int, zone_name: str) -> datetime:
    return datetime.combine(day, time(hour, 7 * hour % 60), ZoneInfo(zone_name))


def records_of(order: PlannedOrder) -> list[Record]:
    """Return what the platform says of an order: nothing of one that went through none."""
    if order.channel is None or order.upstream_ref is None:
        return []
    record = Record(
        channel=order.channel,
        upstream_ref=order.upstream_ref,
        order_no=order.order_no,
        amount=order.amount,
        currency=order.currency,
        status="failed" if order.end == "failed" else "success",
        at=order.at,
    )
    return _as_planted(record, order.plant) if order.plant else [record]


def _as_planted(record: Record, plant: Plant) -> list[Record]:
    later = record.at + timedelta(minutes=3)
    if plant.kind == "amount_mismatch":
        return [replace(record, amount=str(Decimal(record.amount) - Decimal(plant.off_by)))]
    if plant.kind == "status_mismatch":
        return [replace(record, status="failed")]
    if plant.kind == "missing_upstream":
        return []
    if plant.kind == "missing_local":
        strange = replace(record, order_no=f"X-{record.order_no}", upstream_ref=f"X-{record.upstream_ref}", at=later)
        return [record, strange]
    if plant.kind == "duplicate_upstream":
        return [record, replace(record, upstream_ref=f"{record.upstream_ref}-2", at=later)]
    return [record]


def subject_of(order: PlannedOrder) -> str | None:
    """Return the order number that the mismatch names which was planted with this order."""
    if order.plant is None:
        return None
    return f"X-{order.order_no}" if order.plant.kind == "missing_local" else order.order_no
