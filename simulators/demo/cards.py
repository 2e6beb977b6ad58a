"""Makes BIN ranges, cards with money and limits, and the devices that they are used on."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from shared.times import rfc3339
from simulators.demo.orders import once
from simulators.demo.plan import SEED
from simulators.gateway_client import GatewayClient

HOLDERS: Final = ("Ada Lovelace", "Grace Hopper", "Katherine Johnson", "Emmy Noether")
BIN, BIN_OF_AURORA, BIN_DISABLED = "431940", "53210987", "623456"
FUNDS, TOP_UPS, WITHDRAWAL = "4900.00", ("1200.00", "350.50"), "99.90"
LIMITS: Final = {"max_amount": "2000.00", "daily_amount": "5000.00", "daily_count": 10, "monthly_amount": "50000.00"}
LOG: Final = (
    ("login", "success", "Opened at the counter."),
    ("payment", "success", "Paid by tap."),
    ("payment", "failure", "No cover."),
    ("config", "success", "Receipts on."),
)


def make_bins(client: GatewayClient, merchant_ids: dict[str, str]) -> None:
    """Register the BIN ranges that lack: everybody's, one of a single merchant, and one that is disabled."""
    bins: tuple[dict[str, Any], ...] = (
        {"bin": BIN},
        {"bin": BIN_OF_AURORA, "merchant_id": merchant_ids["AURORA"]},
        {"bin": BIN_DISABLED, "status": "disabled"},
    )
    for body in bins:
        once(partial(client.post, "/cards/bins", body), "bin_taken")


def make_cards(client: GatewayClient, code: str, merchant_id: str) -> None:
    """Make a merchant's cards, if it has none: one inactive, one frozen; the active ones with money and limits."""
    if client.get("/cards", merchant_id=merchant_id, limit=1)["items"]:
        return
    _fund(client, code, merchant_id)
    cards = [_make(client, code, merchant_id, number, holder) for number, holder in enumerate(HOLDERS)]
    _make_devices(client, code, cards)
    reason = {"reason": "Reported as lost"}
    client.post(f"/cards/{cards[-1]}/freeze", reason, key=f"demo-freeze-{cards[-1]}")


def _fund(client: GatewayClient, code: str, merchant_id: str) -> None:
    """Recharge the merchant's own account, which the cards' money comes from."""
    order_no = f"R{SEED}-{code}-cards"
    order = {"order_no": order_no, "merchant_id": merchant_id, "kind": "recharge", "amount": FUNDS, "currency": "CNY"}
    order |= {"channel": "unionpay"}
    once(partial(client.post, "/orders", order, key=f"demo-order-{order_no}"), "order_number_taken")
    settlement = {"upstream_ref": f"unionpay-{order_no}"}
    client.post(f"/orders/{order_no}/settle", settlement, key=f"demo-end-{order_no}")


def _make(client: GatewayClient, code: str, merchant_id: str, number: int, holder_name: str) -> str:
    card = {
        "bin": BIN_OF_AURORA if code == "AURORA" and number == 1 else BIN,
        "holder_name": holder_name,
        "currency": "CNY",
        "expiry": f"{2029 + number}-06",
        "merchant_id": merchant_id,
    }
    card_id: str = client.post("/cards", card, key=f"demo-card-{code}-{number}").body["id"]
    if number:  # the first stays inactive, and so has no money
        client.post(f"/cards/{card_id}/activate", key=f"demo-activate-{card_id}")
        client.patch(f"/cards/{card_id}", {"limits": LIMITS})
        for turn, amount in enumerate(TOP_UPS):
            client.post(f"/cards/{card_id}/top-up", {"amount": amount}, key=f"demo-top-up-{card_id}-{turn}")
        client.post(f"/cards/{card_id}/withdraw", {"amount": WITHDRAWAL}, key=f"demo-withdraw-{card_id}")
    return card_id


def _make_devices(client: GatewayClient, code: str, cards: list[str]) -> None:
    """Bind devices: a till and a phone that are heard of, one that never is, one that gets blocked, one unbound."""
    till = _bind(client, code, cards[1], "till", "android")
    phone = _bind(client, code, cards[2], "phone", "ios")
    _bind(client, code, cards[2], "spare terminal", "linux")
    stolen = _bind(client, code, cards[3], "stolen phone", "ios")
    old = _bind(client, code, cards[1], "old till", "android")
    client.post("/devices/heartbeats", {"device_ids": [till, phone, stolen, old]})
    for device_id, card_id in ((till, cards[1]), (phone, cards[2])):
        client.post(f"/devices/{device_id}/logs", {"rows": _log_of(device_id, card_id)})
    client.patch(f"/devices/{stolen}", {"status": "blocked", "reason": "Reported as stolen."})
    client.delete(f"/devices/{old}")


def _bind(client: GatewayClient, code: str, card_id: str, name: str, platform: str) -> str:
    body = {"fingerprint": f"demo-{code}-{name}".replace(" ", "-"), "name": f"{code.title()} {name}"}
    bound = client.post(f"/cards/{card_id}/devices", body | {"platform": platform}).body
    return str(bound["device_id"])


def _log_of(device_id: str, card_id: str) -> list[dict[str, Any]]:
    """Return a week of a device's log."""
    now = datetime.now(UTC)
    return [
        {
            "event_id": f"{device_id}-{day}-{number}",
            "time": rfc3339(now - timedelta(days=day, hours=3, minutes=-20 * number)),
            "action": action,
            "result": result,
            "card_id": card_id,
            "ip": f"192.0.2.{10 + day}",
            "detail": detail,
        }
        for day in range(7)
        for number, (action, result, detail) in enumerate(LOG)
    ]
