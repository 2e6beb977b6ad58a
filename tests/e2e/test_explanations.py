"""Explanations over the whole system: a balance, a refusal before and after it comes, a fee."""

import secrets

from tests.e2e.conftest import Platform


def test_a_balance_a_refusal_and_a_fee_are_explained(platform: Platform) -> None:
    merchant_id, user_id = platform.merchant(), f"user-{secrets.token_hex(4)}"
    operator = platform.person(roles=["operator"], merchants=[merchant_id])
    outsider = platform.person(roles=["operator"], merchants=[platform.merchant()])
    assert platform.recharge(merchant_id, user_id, "100.00").status_code == 201
    order = {
        "merchant_id": merchant_id, "user_id": user_id, "kind": "purchase", "amount": "80.00", "currency": "CNY",
    }  # fmt: skip
    number = operator.post("/orders", order).json()["order_no"]

    balance = operator.get("/explain/balance", user_id=user_id, currency="CNY").json()
    assert (balance["opening"]["balance"], balance["closing"]["balance"]) == ("0", "100.00")
    assert (balance["available"], [hold["order_no"] for hold in balance["holds"]]) == ("20.00", [number])
    assert balance["proof"]["text"] == "proved: 1 rows, 0 gaps"

    change = {
        "merchant_id": merchant_id, "user_id": user_id, "type": 323, "amount": "-50.00", "currency": "CNY",
        "order_no": "P-1",
    }  # fmt: skip
    foreseen = operator.post("/explain/change", change).json()
    assert (foreseen["rule"], foreseen["short_by"], foreseen["holds"][0]["held"]) == ("balance", "30.00", "80.00")
    refused = operator.post("/balance-changes", change)
    assert (refused.status_code, refused.json()["code"]) == (409, foreseen["refusal"]["code"])
    explained = operator.get("/explain/refusal", request_id=refused.json()["request_id"]).json()
    assert (explained["rule"], explained["facts"]["available"]) == ("balance", "20.00")
    allowed = operator.post("/explain/change", change | {"amount": "-20.00"}).json()
    assert (allowed["is_allowed"], allowed["balance_after"]) == (True, "80.00")

    fee = operator.get("/explain/fee", order_no=number).json()
    assert (fee["fee"], fee["charged"], fee["amount"]) == ("0", "0", "80.00")

    hidden = [
        outsider.get("/explain/balance", user_id=user_id, currency="CNY"),
        outsider.post("/explain/change", change),
        outsider.get("/explain/refusal", request_id=refused.json()["request_id"]),
        outsider.get("/explain/fee", order_no=number),
    ]
    assert [answer.status_code for answer in hidden] == [404] * 4
