"""The log over the whole system: four types from real acts, what each person sees, and the chain behind them."""

import secrets
from typing import Any

from tests.e2e.conftest import Api, Platform, eventually


def rows(api: Api, **filters: Any) -> list[dict[str, Any]]:
    answer = api.get("/logs", **{"limit": 500} | filters)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


def test_one_request_is_found_by_its_id_as_call_and_as_operation(platform: Platform) -> None:
    merchant_id, user_id = platform.merchant(), f"u-{secrets.token_hex(4)}"
    answer = platform.recharge(merchant_id, user_id, "12.50")
    request_id, order_no = answer.headers["X-Request-ID"], answer.json()["order_no"]

    found = eventually(lambda: len(r := rows(platform.admin, request_id=request_id)) >= 2 and r)
    by_type = {row["log_type"]: row for row in found}
    assert by_type.keys() == {"api_call", "operation"}
    assert (by_type["api_call"]["status"], by_type["api_call"]["outcome"]) == (201, "success")
    operation = by_type["operation"]
    assert (operation["resource_id"], operation["order_no"]) == (answer.json()["entry_id"], order_no)
    assert operation["merchant_id"] == merchant_id
    assert {row["actor_name"] for row in found} == {platform.admin.get("/me").json()["username"]}

    assert [row["id"] for row in rows(platform.admin, q=order_no)] == [operation["id"]]
    assert [row["id"] for row in rows(platform.admin, q=user_id, type="operation")] == [operation["id"]]
    whole = platform.admin.get(f"/logs/{operation['id']}").json()
    assert (whole["details"]["amount"], whole["chain"]["is_intact"]) == ("12.50", True)


def test_each_sees_the_rows_of_their_merchants_and_their_own_acts(platform: Platform) -> None:
    aurora, borealis = platform.merchant(), platform.merchant()
    bob = platform.person(roles=["operator"], merchants=[aurora])
    for merchant_id in (aurora, borealis):
        assert platform.recharge(merchant_id, "u", "1.00").status_code == 201
    eventually(lambda: rows(platform.admin, merchant_id=borealis, service="ledger"))
    eventually(lambda: rows(bob, merchant_id=aurora, service="ledger"))

    seen = rows(bob)
    me = bob.get("/me").json()
    assert {row["merchant_id"] for row in seen} == {aurora, None}
    assert {row["actor"] for row in seen if row["merchant_id"] is None} == {me["id"]}
    assert rows(bob, merchant_id=borealis) == []
    (foreign, *_) = rows(platform.admin, merchant_id=borealis)
    assert bob.get(f"/logs/{foreign['id']}").status_code == 404
    assert bob.get("/logs/verify").status_code == 403
    counts = bob.get("/logs/stats", by="outcome").json()["items"]
    assert sum(count["count"] for count in counts) < len(rows(platform.admin))


def test_chain_of_all_that_happened_holds(platform: Platform) -> None:
    report = platform.admin.get("/logs/verify").json()
    assert report["ok"], report
    assert report["checked"] > 0
    assert report["next_seq"] is None


def test_reading_the_log_is_in_the_log(platform: Platform) -> None:
    request_id = platform.admin.get("/logs", q="anything").headers["X-Request-ID"]
    (row,) = eventually(lambda: rows(platform.admin, request_id=request_id))
    assert (row["log_type"], row["action"], row["outcome"]) == ("api_call", "logs.list_logs", "success")


def test_refused_call_is_logged_as_denied(platform: Platform) -> None:
    auditor = platform.person(roles=["auditor"], merchants="all")
    answer = auditor.post("/merchants", {"code": "NOPE", "name": "No"})
    assert answer.status_code == 403
    (row,) = eventually(lambda: rows(auditor, request_id=answer.headers["X-Request-ID"]))
    assert (row["outcome"], row["status"]) == ("denied", 403)


def test_rows_come_as_csv(platform: Platform) -> None:
    answer = platform.admin.http.get(f"{platform.admin.url}/api/v1/logs", headers={"Accept": "text/csv"}, timeout=30)
    header, *lines = answer.text.splitlines()
    assert header.startswith("id,log_type,time,actor,")
    assert len(lines) >= len(rows(platform.admin)) - 2
