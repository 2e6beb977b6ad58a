"""Many clients, one account: no refusal is wrong, no balance negative, no version missing."""

from concurrent.futures import ThreadPoolExecutor

from tests.e2e.conftest import Api, Platform

CLIENTS = 32
CHANGES = 1000
FUNDS = 300


def test_a_thousand_changes_at_once_never_overdraw(platform: Platform) -> None:
    merchant = platform.merchant()
    assert platform.recharge(merchant, "u-hot", f"{FUNDS}.00").status_code == 201
    token = str(platform.admin.http.headers["Authorization"]).removeprefix("Bearer ")
    clients = [Api(platform.admin.url, token) for _ in range(CLIENTS)]

    def spend(n: int) -> int:
        body = {
            "merchant_id": merchant, "user_id": "u-hot", "type": 331, "amount": "-1.00", "currency": "CNY",
            "order_no": f"P{n}",
        }  # fmt: skip
        return clients[n % CLIENTS].post("/balance-changes", body).status_code

    with ThreadPoolExecutor(CLIENTS) as pool:
        statuses = list(pool.map(spend, range(CHANGES)))
    assert statuses.count(201) == FUNDS  # as many as there was money for, and not one fewer
    assert statuses.count(409) == CHANGES - FUNDS
    (account,) = platform.admin.get("/accounts/u-hot", merchant_id=merchant).json()["items"]
    assert account["balance"] in ("0", "0.00")
    rows, cursor = [], None
    while True:
        query = {"merchant_id": merchant, "limit": 500} | ({"cursor": cursor} if cursor else {})
        page = platform.admin.get("/balance-logs", **query).json()
        rows += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(row["version"] for row in rows) == list(range(1, FUNDS + 2))
    balances = [float(row["balance"]) for row in sorted(rows, key=lambda row: row["version"])]
    assert balances == [FUNDS - n for n in range(FUNDS + 1)]
