"""The log over the whole system: four types from real acts, what each person sees, and the chain behind them."""

import secrets
from functools import partial
from typing import Any

import psycopg

from operations.calls import Caller
from operations.databases import service_database
from shared.contracts.audit import verify_in_calls
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


def test_row_that_the_database_s_owner_changed_is_named_by_the_api_and_by_the_command(platform: Platform) -> None:
    system = platform.system
    answer = platform.recharge(platform.merchant(), "u", "2.00")
    (row,) = eventually(lambda: rows(platform.admin, q=answer.json()["order_no"]))
    owner = service_database(system.home, system.servers.database_url, "audit").owner_url
    change = "update log_rows set actor_name = %s where event_id || '-' || part = %s"
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(change, ("mallory", row["id"]))
        try:
            report = platform.admin.get("/logs/verify").json()
            with Caller(system) as caller:
                by_command = verify_in_calls(partial(caller.call, "audit", "verify_chain"))
        finally:
            connection.execute(change, (row["actor_name"], row["id"]))
    for found in (report, by_command):
        assert not found["ok"]
        assert (found["first_broken"]["kind"], found["first_broken"]["id"]) == ("changed", row["id"])
    assert platform.admin.get("/logs/verify").json()["ok"]


def test_nothing_is_lost_or_written_twice_when_the_service_is_killed_in_its_work(platform: Platform) -> None:
    merchant_id = platform.merchant()
    orders = []
    for number in range(60):
        answer = platform.recharge(merchant_id, f"u{number}", "1.00")
        assert answer.status_code == 201, answer.text
        orders.append(answer.json()["order_no"])
        if number % 20 == 10:
            eventually(lambda: platform.admin.get("/logs/stats", by="hour").status_code == 200, within_seconds=60)
            platform.system.kill("audit")

    def written() -> list[str]:
        answer = platform.admin.get("/logs", merchant_id=merchant_id, type="operation", service="ledger", limit=500)
        if answer.status_code != 200:
            return []
        return [row["order_no"] for row in answer.json()["items"] if row["event"] == "BalancesChanged"]

    eventually(lambda: len(written()) >= len(orders), within_seconds=60)
    assert sorted(written()) == sorted(orders)
    assert platform.admin.get("/logs/verify").json()["ok"]


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
