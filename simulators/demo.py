"""Fills a platform with something to look at: merchants, balances of all types, cards, groups that were told.

Everything goes through the gateway's HTTP API, as a program of the platform would do it. Running it again adds only
what lacks: each step looks first, and posts under keys that are always the same.
"""

from collections.abc import Callable
from typing import Any

from simulators.gateway_client import GatewayClient
from simulators.post_changes import ensure_merchants, post_changes
from simulators.sample_data import make_changes
from simulators.telegram.server import ControlClient

MERCHANTS = {"AURORA": "Aurora Mobile", "BOREALIS": "Borealis Games", "CIRRUS": "Cirrus Travel"}
ROWS, USERS, SEED = 3_000, 60, 2026
CARD_HOLDERS = ("Ada Lovelace", "Grace Hopper", "Katherine Johnson", "Emmy Noether")
CARD_BIN = "431940"
CARD_FUNDS, CARD_TOP_UPS, CARD_WITHDRAWAL = "4900.00", ("1200.00", "350.50"), "99.90"
LARGE_CHANGE_THRESHOLD = "5000.00"
LARGE_RECHARGES = ("6800.00", "12500.00")


def fill(
    client: GatewayClient, telegram: ControlClient | None = None, *, tell: Callable[[str], None] = lambda step: None
) -> None:
    """Fill in what lacks.

    client: signed in as an administrator.
    telegram: the simulated Bot API, whose groups get their names; None where a real one is in use.
    tell: is told of each step before it begins.
    Raises: GatewayRefused, GatewayUnreachable.
    """
    tell(f"{len(MERCHANTS)} merchants")
    merchant_ids = ensure_merchants(client, MERCHANTS, names=MERCHANTS)
    if _is_told(client, merchant_ids):
        return
    tell(f"{ROWS} balance changes of {USERS} users")
    changes = make_changes(rows=ROWS, users=USERS, seed=SEED, merchants=list(MERCHANTS))
    post_changes(client, changes, merchant_ids, file_hash=f"demo-{SEED}")
    for number, (code, merchant_id) in enumerate(merchant_ids.items(), start=1):
        tell(f"cards and a Telegram group of {MERCHANTS[code]}")
        _make_cards(client, code, merchant_id)
        _bind_group(client, telegram, code, merchant_id, chat_id=-1002026000000 - number)
        _recharge(client, code, merchant_id)


def _is_told(client: GatewayClient, merchant_ids: dict[str, str]) -> bool:
    """Return whether the last step was taken before: every merchant's group has been told of something."""
    return all(
        client.get("/telegram/notifications", merchant_id=merchant_id, limit=1)["items"]
        for merchant_id in merchant_ids.values()
    )


def _make_cards(client: GatewayClient, code: str, merchant_id: str) -> None:
    if client.get("/cards", merchant_id=merchant_id, limit=1)["items"]:
        return
    funds = {"type": 321, "order_no": f"R{SEED}-{code}-cards", "channel": "unionpay", "amount": CARD_FUNDS}
    funds |= {"merchant_id": merchant_id, "currency": "CNY"}
    client.post("/balance-changes", funds, key=f"demo-card-funds-{code}")
    for number, holder_name in enumerate(CARD_HOLDERS):
        card = {
            "bin": CARD_BIN,
            "holder_name": holder_name,
            "currency": "CNY",
            "expiry": f"{2029 + number}-06",
            "merchant_id": merchant_id,
        }
        made: dict[str, Any] = client.post("/cards", card, key=f"demo-card-{code}-{number}").body
        if number:  # the first stays inactive, and so has no money
            client.post(f"/cards/{made['id']}/activate", key=f"demo-activate-{made['id']}")
            _move_card_money(client, made["id"])
        if number == len(CARD_HOLDERS) - 1:
            reason = {"reason": "Reported as lost"}
            client.post(f"/cards/{made['id']}/freeze", reason, key=f"demo-freeze-{made['id']}")


def _move_card_money(client: GatewayClient, card_id: str) -> None:
    for number, amount in enumerate(CARD_TOP_UPS):
        client.post(f"/cards/{card_id}/top-up", {"amount": amount}, key=f"demo-top-up-{card_id}-{number}")
    client.post(f"/cards/{card_id}/withdraw", {"amount": CARD_WITHDRAWAL}, key=f"demo-withdraw-{card_id}")


def _bind_group(
    client: GatewayClient, telegram: ControlClient | None, code: str, merchant_id: str, *, chat_id: int
) -> None:
    title = f"{MERCHANTS[code]} · payments"
    if telegram is not None:
        telegram.name_chat(chat_id, title)
    bindings = client.get("/telegram/bindings", merchant_id=merchant_id, limit=1)["items"]
    if bindings:
        return
    binding = {"merchant_id": merchant_id, "chat_id": str(chat_id), "title": title}
    made = client.post("/telegram/bindings", binding, key=f"demo-binding-{code}").body
    rules = {"large_change": {"enabled": True, "threshold": LARGE_CHANGE_THRESHOLD}}
    client.put(f"/telegram/bindings/{made['id']}/rules", rules)


def _recharge(client: GatewayClient, code: str, merchant_id: str) -> None:
    for number, amount in enumerate(LARGE_RECHARGES, start=1):
        change = {
            "merchant_id": merchant_id,
            "user_id": f"u{SEED}-vip-{code.lower()}",
            "type": 321,
            "amount": amount,
            "currency": "CNY",
            "order_no": f"R{SEED}-{code}-{number}",
            "channel": "unionpay",
        }
        client.post("/balance-changes", change, key=f"demo-recharge-{code}-{number}")
