"""Fills a platform with something to look at: thirty days of orders and their books, cards, devices, people, groups.

Everything goes through the gateway's HTTP API, as a program of the platform would do it. Running it again adds only
what lacks: each step looks first, and posts under keys and numbers that are always the same. Past days are lived
through by a clock that the caller turns; without one everything is of today.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from simulators.demo import books, cards
from simulators.demo.orders import Orders, once
from simulators.demo.people import make_people
from simulators.demo.plan import DAYS, MERCHANTS, SEED, PlannedOrder, plan_past, plan_today
from simulators.gateway_client import GatewayClient, SignIn
from simulators.payment_platform.server import PlatformClient
from simulators.post_changes import ensure_merchants, post_changes
from simulators.sample_data import SampleChange, make_changes
from simulators.telegram.server import ControlClient

ROWS, USERS = 3_000, 60
LARGE_CHANGE_THRESHOLD: Final = "5000.00"
LARGE_RECHARGES: Final = ("6800.00", "12500.00")
CHAT_ID: Final = -1002026000000


class Clock(Protocol):
    """The ledger's clock."""

    def turn(self, at: datetime) -> None:
        """Have it be `at` in the ledger from now on."""


@dataclass(kw_only=True)
class Surroundings:
    """What the demonstration has besides the gateway.

    telegram: the simulated Bot API, whose groups get their names; None where a real one is in use.
    platform: the simulated payment platform, and what it signs by; None where none runs.
    clock: opens the ledger's clock for past days, or gives None where it cannot be turned.
    tell: is told of each step before it begins.   keep: is given each sign-in that was made.
    """

    telegram: ControlClient | None = None
    platform: PlatformClient | None = None
    platform_secret: str = ""
    clock: Callable[[], AbstractContextManager[Clock | None]] = field(default=lambda: nullcontext(None))
    tell: Callable[[str], None] = lambda step: None
    keep: Callable[[SignIn], None] = lambda sign_in: None


def fill(client: GatewayClient, around: Surroundings) -> None:
    """Fill in what lacks, signed in as an administrator. Raises: GatewayRefused, GatewayUnreachable."""
    around.tell(f"{len(MERCHANTS)} merchants")
    merchant_ids = ensure_merchants(client, MERCHANTS, names=MERCHANTS)
    if _is_told(client, merchant_ids):
        return
    zone_name = client.get("/settings/parameters/system.timezone")["value"]
    _Story(client, around, merchant_ids, zone_name).tell()


def _is_told(client: GatewayClient, merchant_ids: dict[str, str]) -> bool:
    """Return whether the last step was taken before: every merchant's group has been told of something."""
    return all(
        client.get("/telegram/notifications", merchant_id=merchant_id, limit=1)["items"]
        for merchant_id in merchant_ids.values()
    )


class _Story:
    """The demonstration, step by step."""

    def __init__(
        self, client: GatewayClient, around: Surroundings, merchant_ids: dict[str, str], zone_name: str
    ) -> None:
        self.client, self.around, self.merchant_ids, self.zone_name = client, around, merchant_ids, zone_name
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.last_day = self.now.astimezone(ZoneInfo(zone_name)).date() - timedelta(days=1)

    def tell(self) -> None:
        """Take all steps."""
        books.register_channels(self.client, self.around.platform, self.around.platform_secret)
        orders = Orders(self.client, self.merchant_ids, self.around.platform)
        with self.around.clock() as clock:
            past = self._live_past(orders, clock) if clock else []
        if not past:
            self._post_changes(lambda at: None)
        self.around.tell("orders of today")
        today = plan_today(self.now, is_alone=not past)
        orders.live(today, lambda at: None)
        self.around.tell("people of each role")
        second = make_people(self.client, self.client.url, self.merchant_ids, self.around.keep)
        self._close_books(second, past or today, is_past=bool(past))
        self.around.tell("cards and devices")
        cards.make_bins(self.client, self.merchant_ids)
        for number, (code, merchant_id) in enumerate(self.merchant_ids.items(), start=1):
            cards.make_cards(self.client, code, merchant_id)
            self._bind_group(code, merchant_id, chat_id=CHAT_ID - number)
            self._recharge(code, merchant_id)

    def _live_past(self, orders: Orders, clock: Clock) -> list[PlannedOrder]:
        self._post_changes(clock.turn)
        self.around.tell(f"{DAYS} days of orders")
        past = plan_past(self.last_day, self.zone_name)
        orders.live(past, clock.turn)
        return past

    def _post_changes(self, turn: Callable[[datetime], None]) -> None:
        """Post changes of all types, which are of the thirty days before the orders'."""
        self.around.tell(f"{ROWS} balance changes")
        changes = make_changes(rows=ROWS, users=USERS, seed=SEED, merchants=list(MERCHANTS))
        size = ROWS // DAYS
        for number in range(DAYS):
            turn(self.now - timedelta(days=2 * DAYS - number, hours=self.now.hour - 12))
            self._post(changes[number * size : (number + 1) * size], f"demo-{SEED}-{number}")

    def _post(self, changes: Sequence[SampleChange], name: str) -> None:
        post_changes(self.client, changes, self.merchant_ids, file_hash=name)

    def _close_books(self, second: GatewayClient, orders: list[PlannedOrder], *, is_past: bool) -> None:
        self.around.tell("statements, mismatches, days")
        books.upload_statements(self.client, orders, self.zone_name)
        today = self.last_day + timedelta(days=1)
        books.reconcile(self.client, books.past_days(self.last_day) if is_past else [today])
        books.decide(self.client, second, orders, self.merchant_ids)
        if is_past:
            books.close_days(self.client, self.last_day)

    def _bind_group(self, code: str, merchant_id: str, *, chat_id: int) -> None:
        title = f"{MERCHANTS[code]} · payments"
        if self.around.telegram is not None:
            self.around.telegram.name_chat(chat_id, title)
        bindings = self.client.get("/telegram/bindings", merchant_id=merchant_id, limit=1)["items"]
        if bindings:
            return
        binding = {"merchant_id": merchant_id, "chat_id": str(chat_id), "title": title}
        made = self.client.post("/telegram/bindings", binding, key=f"demo-binding-{code}").body
        rules = {"large_change": {"enabled": True, "threshold": LARGE_CHANGE_THRESHOLD}, "device": {"enabled": True}}
        self.client.put(f"/telegram/bindings/{made['id']}/rules", rules)

    def _recharge(self, code: str, merchant_id: str) -> None:
        """Settle recharges that are large, so that the merchant's group is told of them."""
        for number, amount in enumerate(LARGE_RECHARGES, start=1):
            order_no = f"R{SEED}-{code}-{number}"
            order = {
                "order_no": order_no,
                "merchant_id": merchant_id,
                "user_id": f"{code.lower()}-vip",
                "kind": "recharge",
                "amount": amount,
                "currency": "CNY",
                "channel": "unionpay",
            }
            self._settle(order)

    def _settle(self, order: dict[str, str]) -> None:
        order_no = order["order_no"]
        once(partial(self.client.post, "/orders", order, key=f"demo-order-{order_no}"), "order_number_taken")
        settlement = {"upstream_ref": f"unionpay-{order_no}"}
        self.client.post(f"/orders/{order_no}/settle", settlement, key=f"demo-end-{order_no}")


__all__ = ["MERCHANTS", "Clock", "Surroundings", "fill"]
