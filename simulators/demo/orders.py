"""Lives the planned orders through: each made, and then settled, failed or refunded, by whom it happens in life."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from itertools import groupby
from queue import SimpleQueue
from typing import Any, Final

from shared.times import rfc3339
from simulators.demo.plan import CALLS_BACK, PlannedOrder
from simulators.gateway_client import GatewayClient, GatewayRefused
from simulators.payment_platform.server import PlatformClient

AT_ONCE: Final = 6
REFUND_REASONS: Final = {"refunded": "Returned by the customer.", "partly": "Half of it was delivered."}


class Orders:
    """Makes orders and brings them to their ends, several at once.

    platform: where the orders of the channel that calls back are paid; the others are settled by staff.
    """

    def __init__(self, client: GatewayClient, merchant_ids: dict[str, str], platform: PlatformClient | None) -> None:
        self._merchant_ids, self._platform = merchant_ids, platform
        self._clients: SimpleQueue[GatewayClient] = SimpleQueue()
        for _ in range(AT_ONCE):
            self._clients.put(client.twin())

    def live(self, orders: Iterable[PlannedOrder], turn: Callable[[datetime], None]) -> None:
        """Live orders through, moment by moment: `turn` is called before each. Raises: GatewayRefused."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for at, of_moment in groupby(orders, key=lambda order: order.at):
                turn(at)
                list(pool.map(self._live, of_moment))

    def _live(self, order: PlannedOrder) -> None:
        client = self._clients.get()
        try:
            self._make(client, order)
            self._end(client, order)
        finally:
            self._clients.put(client)

    def _make(self, client: GatewayClient, order: PlannedOrder) -> None:
        body = {
            "order_no": order.order_no,
            "merchant_id": self._merchant_ids[order.merchant_code],
            "user_id": order.user_id,
            "kind": order.kind,
            "amount": order.amount,
            "currency": order.currency,
            "channel": order.channel,
        }
        once(partial(client.post, "/orders", body, key=f"demo-order-{order.order_no}"), "order_number_taken")

    def _end(self, client: GatewayClient, order: PlannedOrder) -> None:
        if order.end == "pending" or (order.plant and order.plant.kind == "missing_local_update"):
            return
        path, key = f"/orders/{order.order_no}", f"demo-end-{order.order_no}"
        if order.end == "failed":
            client.post(f"{path}/fail", {"reason": "Not paid in time."}, key=key)
        elif self._platform and order.channel == CALLS_BACK and not order.plant:
            self._call_back(self._platform, order)
        else:
            client.post(f"{path}/settle", {"upstream_ref": order.upstream_ref}, key=key)
        if order.end in REFUND_REASONS:
            part = {"amount": order.half} if order.end == "partly" else {}
            refund = {"reason": REFUND_REASONS[order.end], **part}
            client.post(f"{path}/refund", refund, key=f"demo-refund-{order.order_no}")

    def _call_back(self, platform: PlatformClient, order: PlannedOrder) -> None:
        """Have the order paid at its platform, which tells of it."""
        channel, payment = str(order.channel), {"upstream_ref": order.upstream_ref, "time": rfc3339(order.at)}
        platform.make_payment(channel, order.order_no, order.amount, currency=order.currency, **payment)
        platform.deliver(channel, upstream_refs=[order.upstream_ref])


def once(act: Callable[[], Any], *codes: str) -> Any:
    """Return what an act returns; None where the refusal says that it was done before."""
    try:
        return act()
    except GatewayRefused as refused:
        if refused.problem.get("code") not in codes:
            raise
        return None
