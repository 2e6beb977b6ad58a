"""A card's money over the whole system: it moves once, whatever is killed meanwhile, and both services say the same."""

import itertools
import random
import secrets
import threading
import time

import requests

from tests.e2e.conftest import Api, Platform, eventually
from tests.e2e.test_cards import make_card
from tests.e2e.test_faults import prove

CLIENTS = 50
MOVES_EACH = 6
VICTIMS = ("cards", "ledger", "cards", "rabbitmq", "ledger", "cards")
ANSWERED_SECONDS_MAX = 120


def fund(platform: Platform, merchant_id: str, amount: str) -> None:
    """Put money into a merchant's own account."""
    body = {
        "merchant_id": merchant_id, "type": 321, "amount": amount, "currency": "CNY",
        "order_no": f"R{secrets.token_hex(8)}", "channel": "alipay",
    }  # fmt: skip
    assert platform.admin.post("/balance-changes", body).status_code == 201


def active_card(platform: Platform, merchant_id: str) -> str:
    card_id = str(make_card(platform.admin, merchant_id=merchant_id)["id"])
    assert platform.admin.post(f"/cards/{card_id}/activate").status_code == 200
    return card_id


def everything(api: Api, path: str) -> list[dict]:
    """Return all items of a list, page after page."""
    items, cursor = [], None
    while True:
        page = api.get(path, limit=200, **({"cursor": cursor} if cursor else {})).json()
        items += page["items"]
        if (cursor := page["next_cursor"]) is None:
            return items


def test_an_operator_moves_a_cards_money_and_sees_every_move(platform: Platform) -> None:
    merchant_id = platform.merchant()
    fund(platform, merchant_id, "100.00")
    operator = platform.person(roles=["operator"], merchants=[merchant_id])
    auditor = platform.person(roles=["auditor"], merchants=[merchant_id])
    stranger = platform.person(roles=["operator"], merchants=[platform.merchant()])
    card_id = active_card(platform, merchant_id)
    assert operator.patch(f"/cards/{card_id}", {"limits": {"daily_amount": "50.00"}}).status_code == 200
    moved = operator.post(f"/cards/{card_id}/top-up", {"amount": "40.00"}, key="once")
    assert (moved.status_code, moved.json()["balance"]) == (201, "40.00")
    again = operator.post(f"/cards/{card_id}/top-up", {"amount": "40.00"}, key="once")
    assert (again.status_code, again.content) == (201, moved.content)
    assert again.headers["Idempotent-Replayed"] == "true"
    refused = operator.post(f"/cards/{card_id}/top-up", {"amount": "10.01"})
    assert (refused.status_code, refused.json()["code"], refused.json()["limit"]) == (
        409, "limit_exceeded", "daily_amount",
    )  # fmt: skip
    assert operator.post(f"/cards/{card_id}/withdraw", {"amount": "40.01"}).json()["code"] == "insufficient_balance"
    assert operator.post(f"/cards/{card_id}/withdraw", {"amount": "15.00"}).status_code == 201
    assert auditor.post(f"/cards/{card_id}/withdraw", {"amount": "1.00"}).status_code == 403

    balance = auditor.get(f"/cards/{card_id}/balance").json()
    assert (balance["balance"], balance["available"], balance["transfers_under_way"]) == ("25.00", "25.00", 0)
    assert auditor.get(f"/cards/{card_id}").json()["balance"] == "25.00"
    rows = auditor.get(f"/cards/{card_id}/balance-logs").json()["items"]
    assert [(row["type"], row["amount"], row["balance"]) for row in rows] == [
        (512, "-15.00", "25.00"), (511, "40.00", "40.00")
    ]  # fmt: skip
    assert {row["operator"] for row in rows} != {None}
    csv = auditor.http.get(
        f"{auditor.url}/api/v1/cards/{card_id}/balance-logs", headers={"Accept": "text/csv"}, timeout=30
    )
    assert len(csv.text.splitlines()) == 3
    assert [t["state"] for t in auditor.get(f"/cards/{card_id}/transfers").json()["items"]] == [
        "posted", "refused", "posted"
    ]  # fmt: skip
    for path in ("", "/balance", "/balance-logs", "/transfers"):
        assert stranger.get(f"/cards/{card_id}{path}").json()["code"] == "card_not_found"
    assert stranger.post(f"/cards/{card_id}/top-up", {"amount": "1.00"}).json()["code"] == "card_not_found"

    assert operator.post(f"/cards/{card_id}/close", {"reason": "done"}).json()["code"] == "card_not_empty"
    assert platform.admin.put(f"/cards/{card_id}/merchant", {"merchant_id": None}).json()["code"] == "card_not_empty"
    assert operator.post(f"/cards/{card_id}/withdraw", {"amount": "25.00"}).status_code == 201
    assert operator.post(f"/cards/{card_id}/close", {"reason": "done"}).status_code == 200
    logged = eventually(
        lambda: [
            row["action"]
            for row in platform.admin.get("/logs", resource_id=card_id, limit=100).json()["items"]
            if row["log_type"] != "api_call" and row["action"] in ("cards.top_up_card", "cards.withdraw_from_card")
        ]
    )
    assert len(logged) >= 1
    hand_made = {"merchant_id": merchant_id, "type": 511, "amount": "1.00", "currency": "CNY"}
    assert platform.admin.post("/balance-changes", hand_made).json()["code"] == "balance_type_reserved"


def test_cards_and_ledger_agree_though_both_and_the_bus_are_killed_meanwhile(platform: Platform) -> None:
    merchant_id = platform.merchant()
    fund(platform, merchant_id, "1000.00")
    card_id = active_card(platform, merchant_id)
    token = str(platform.admin.http.headers["Authorization"]).removeprefix("Bearer ")
    chance, outcomes, unknown = random.Random(5), {}, itertools.count()
    orders = [
        [(chance.choice(["top-up", "top-up", "withdraw"]), f"{chance.randrange(1, 20)}.00") for _ in range(MOVES_EACH)]
        for _ in range(CLIENTS)
    ]

    def move_until_done(client: int) -> None:
        api = Api(platform.system.url, token)
        for n, (route, amount) in enumerate(orders[client]):
            answer = _until_answered(api, f"/cards/{card_id}/{route}", amount, f"{card_id}-{client}-{n}", unknown)
            outcomes[client, n] = (route, amount, answer)

    threads = [threading.Thread(target=move_until_done, args=(client,)) for client in range(CLIENTS)]
    for thread in threads:
        thread.start()
    killed = []
    for victim in VICTIMS:
        time.sleep(1.5)
        if any(thread.is_alive() for thread in threads):
            platform.system.kill(victim)
            killed.append(victim)
    for thread in threads:
        thread.join()
    platform.system.wait_ready()
    assert {"cards", "ledger", "rabbitmq"} <= set(killed), "it was over before anything was killed"
    assert next(unknown) > 0, "no kill was felt"
    assert len(outcomes) == CLIENTS * MOVES_EACH

    # Nobody asks any more: whatever is under way is completed by itself.
    eventually(
        lambda: platform.admin.get(f"/cards/{card_id}/balance").json().get("transfers_under_way") == 0,
        within_seconds=30,
    )
    transfers = everything(platform.admin, f"/cards/{card_id}/transfers")
    assert len(transfers) == CLIENTS * MOVES_EACH
    posted = {t["transfer_id"]: t for t in transfers if t["state"] == "posted"}
    assert sorted(a["transfer_id"] for _, _, a in outcomes.values() if a["state"] == "posted") == sorted(posted)
    on_card = sum(int(t["amount"][:-3]) * (1 if t["direction"] == "top_up" else -1) for t in posted.values())
    balance = platform.admin.get(f"/cards/{card_id}/balance").json()
    assert balance["balance"] == platform.admin.get(f"/cards/{card_id}").json()["balance"] == f"{on_card}.00"
    # The ledger has each of them once, in two entries that cancel out.
    entries = everything(platform.admin, f"/cards/{card_id}/balance-logs")
    assert sorted(entry["note"].split()[0] for entry in entries) == sorted(posted)
    summary = platform.admin.get("/balance-logs/summary", merchant_id=merchant_id, group="Platform").json()
    assert {row["net"] for row in summary["items"]} == {"0"}
    assert sum(row["count"] for row in summary["items"]) == 2 * len(posted)
    [account] = platform.admin.get("/accounts", merchant_id=merchant_id, holder_type="merchant").json()["items"]
    assert account["balance"] == f"{1000 - on_card}.00"
    prove(platform)


def _until_answered(api: Api, path: str, amount: str, key: str, unknown: itertools.count) -> dict:
    """Move money under one key, as a careful client does, until the answer is known."""
    give_up_at = time.monotonic() + ANSWERED_SECONDS_MAX
    while True:
        assert time.monotonic() < give_up_at, "no answer"
        try:
            answer = api.post(path, {"amount": amount}, key=key)
        except requests.ConnectionError:
            time.sleep(0.2)
            continue
        if answer.status_code == 201:
            return dict(answer.json())
        code = answer.json()["code"]
        if code == "insufficient_balance":
            return {"state": "refused"}
        assert answer.status_code in (502, 503, 504) or code == "idempotency_in_progress", answer.text
        next(unknown)
        time.sleep(0.2)
