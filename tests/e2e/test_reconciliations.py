"""Reconciliation over the whole system: upload, match, see; and who sees only some merchants sees only theirs."""

import secrets
from datetime import UTC, datetime
from typing import Any

from tests.e2e.conftest import Api, Platform, eventually

HEADER = "upstream_ref,order_no,amount,fee,currency,status,time"


def settled_recharge(api: Api, merchant_id: str, channel: str, amount: str) -> str:
    """Make and settle a recharge. Returns: its number."""
    body = {"merchant_id": merchant_id, "user_id": "u", "kind": "recharge", "amount": amount, "currency": "CNY"}
    number = str(api.post("/orders", body | {"channel": channel}).json()["order_no"])
    assert api.post(f"/orders/{number}/settle").status_code == 200
    return number


def upload(api: Api, channel: str, lines: list[str]) -> None:
    text = "\n".join([HEADER, *lines, ""])
    url, headers = f"{api.url}/api/v1/channels/{channel}/statements", {"Content-Type": "text/csv"}
    answer = api.http.post(url, data=text.encode(), headers=headers, timeout=30)
    assert answer.status_code in (201, 202), answer.text
    statement = answer.json()["statement_id"]
    eventually(lambda: api.get(f"/statements/{statement}").json()["status"] == "imported")


def own(answer: Any, channel: str) -> list[Any]:
    return [item for item in answer.json()["items"] if item["channel"] == channel]


def test_a_day_is_reconciled_and_its_books_are_seen_by_whom_they_concern(platform: Platform) -> None:
    admin, channel = platform.admin, f"recon-{secrets.token_hex(4)}"
    ours, theirs = platform.merchant(), platform.merchant()
    auditor = platform.person(roles=["auditor"], merchants=[ours])
    stranger = platform.person(roles=["operator"], merchants=[theirs])
    assert admin.post("/channels", {"code": channel, "name": "Recon", "kind": "statement"}).status_code == 201
    first = settled_recharge(admin, ours, channel, "10.00")
    second = settled_recharge(admin, theirs, channel, "20.00")
    now = datetime.now(UTC)
    day, at = now.date().isoformat(), now.strftime("%Y-%m-%dT%H:%M:%SZ")
    refs = [f"r-{secrets.token_hex(4)}" for _ in range(2)]
    upload(
        admin, channel, [f"{refs[0]},{first},10.00,0,CNY,success,{at}", f"{refs[1]},{second},25.00,0,CNY,success,{at}"]
    )

    run = admin.post("/reconciliations", {"channel": channel, "date": day}).json()
    assert (run["records"], run["orders"], run["matched"], run["found"]) == (2, 2, 1, 1)
    again = admin.post("/reconciliations", {"channel": channel, "date": day}).json()
    assert (again["previous_id"], again["found"]) == (run["id"], 1)
    compared = admin.get(f"/reconciliations/{again['id']}/compare").json()
    assert (compared["new"], compared["gone"], compared["still"]) == (0, 0, 1)
    [mismatch] = admin.get("/mismatches", channel=channel).json()["items"]
    assert (mismatch["kind"], mismatch["order_no"], mismatch["difference"]) == ("amount_mismatch", second, "5.00")

    [check] = own(admin.get("/reconciliations/daily", date=day), channel)
    assert (check["name"], check["expected"], check["actual"], check["ok"]) == (
        "recharge_total",
        "35.00",
        "30.00",
        False,
    )
    [row] = admin.http.get(f"{admin.url}{check['rows']}", timeout=30).json()["items"]
    assert (row["order_no"], row["difference"]) == (second, "-5.00")
    month = admin.get("/reconciliations/monthly", month=day[:7])
    assert [item["recharge"] for item in own(month, channel)] == ["30.00"]

    [mine] = own(auditor.get("/reconciliations/daily", date=day), channel)
    assert (mine["expected"], mine["actual"], mine["ok"]) == ("10.00", "10.00", True)
    assert [i["recharge"] for i in own(auditor.get("/reconciliations/monthly", month=day[:7]), channel)] == ["10.00"]
    rows = auditor.get("/reconciliations/daily/rows", date=day, check="recharge_total", channel=channel, all="true")
    assert [item["order_no"] for item in rows.json()["items"]] == [first]
    assert auditor.get("/reconciliations").json()["items"] == []
    assert auditor.get(f"/reconciliations/{run['id']}").status_code == 404
    assert stranger.post("/reconciliations", {"channel": channel, "date": day}).status_code == 403
    assert stranger.post("/closed-days", {"date": day, "reason": "x"}).status_code == 403
    refused = admin.post("/closed-days", {"date": day, "reason": "Too early."})
    assert refused.status_code == 409

    def logged() -> set[str]:
        rows = admin.get("/logs", resource_id=again["id"], limit=50).json()["items"]
        return {row["action"] for row in rows}

    eventually(lambda: "ledger.create_reconciliation" in logged())
    assert admin.get("/logs", resource_id=mismatch["id"]).json()["items"]
