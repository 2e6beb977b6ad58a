"""A mismatch over the whole system: found, previewed, approved by a second person once, taken back; and who may."""

import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.e2e.conftest import Api, Platform, eventually

GRACE = "/settings/parameters/ledger.reconciliation_grace"
WHY = {"reason": "The platform was asked."}


class Shop:
    """A merchant with a channel of its own, people, and orders of which the platform knows nothing."""

    def __init__(self, platform: Platform) -> None:
        self.platform, self.admin = platform, platform.admin
        self.merchant_id, self.channel = platform.merchant(), f"c{secrets.token_hex(4)}"
        self.user_id = f"user-{secrets.token_hex(4)}"
        self.second = platform.person(roles=["administrator"], merchants="all")
        self.operator = platform.person(roles=["operator"], merchants=[self.merchant_id])
        made = self.admin.post(
            "/channels", {"code": self.channel, "name": "Ours", "kind": "statement", "reason": "A test."}
        )
        assert made.status_code == 201, made.text
        set_grace(self.admin, "0s")

    def mismatch(self, amount: str) -> Any:
        """Return the mismatch of a recharge that was settled here, and nowhere else."""
        order = {
            "merchant_id": self.merchant_id, "user_id": self.user_id, "kind": "recharge", "amount": amount,
            "currency": "CNY", "channel": self.channel,
        }  # fmt: skip
        number = self.admin.post("/orders", order).json()["order_no"]
        assert self.admin.post(f"/orders/{number}/settle").status_code == 200

        def found() -> Any:
            run = self.admin.post(
                "/reconciliations", {"channel": self.channel, "date": datetime.now(UTC).date().isoformat()}
            )
            assert run.status_code == 201, run.text
            return self.operator.get("/mismatches", order_no=number).json()["items"]

        [mismatch] = eventually(found)
        return mismatch

    def balance(self) -> str:
        [account] = self.operator.get(f"/accounts/{self.user_id}").json()["items"]
        return str(account["balance"])


def set_grace(admin: Api, value: str) -> None:
    version = admin.get(GRACE).json()["version"]
    answer = admin.put(GRACE, {"value": value, "expected_version": version, "reason": "A test."})
    assert answer.status_code == 200, answer.text


@pytest.fixture
def shop(platform: Platform) -> Any:
    """A shop; nothing waits for a grace meanwhile."""
    yield Shop(platform)
    set_grace(platform.admin, "24h")


def test_correction_of_much_money_takes_two_people_and_one_act_takes_it_back(shop: Shop) -> None:
    mismatch = shop.mismatch("2000.00")
    path = f"/mismatches/{mismatch['id']}"
    assert (mismatch["kind"], mismatch["difference"], mismatch["status"]) == ("missing_upstream", "-2000.00", "open")
    wanted = WHY | {"to": "upstream"}
    assert shop.operator.post(f"{path}/correct", wanted).json()["missing"] == "mismatches:admin"
    preview = shop.admin.post(f"{path}/correct?dry_run=true", wanted).json()["preview"]
    [entry] = preview["entries"]
    assert (entry["type"], entry["amount"], entry["balance"], preview["needs_approval"]) == (326, "-2000.00", "0", True)
    assert shop.balance() == "2000.00"

    waiting = shop.admin.post(f"{path}/correct", wanted).json()
    assert (waiting["status"], waiting["corrections"][0]["content_sha256"]) == (
        "pending_approval", preview["content_sha256"],
    )  # fmt: skip
    alone = shop.admin.post(f"{path}/approve", {})
    assert (alone.status_code, alone.json()["code"]) == (403, "four_eyes")
    stale = shop.second.post(f"{path}/approve", {"content_sha256": "0" * 64})
    assert (stale.status_code, stale.json()["code"]) == (409, "proposal_changed")
    third = shop.platform.person(roles=["administrator"], merchants="all")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda api: api.post(f"{path}/approve", {}), [shop.second, third] * 4))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    assert shop.balance() == "0"
    detail = shop.operator.get(f"/orders/{mismatch['order_no']}").json()
    assert (detail["status"], [e["type"] for e in detail["entries"]]) == ("failed", [326, 321])
    assert [act["act"] for act in detail["history"]] == ["correct", "settle", "create"]
    assert [m["status"] for m in detail["mismatches"]] == ["corrected"]

    [correction] = shop.operator.get("/corrections", mismatch_id=mismatch["id"]).json()["items"]
    assert shop.admin.post(f"/corrections/{correction['id']}/reverse", WHY).json()["status"] == "proposed"
    assert shop.second.post(f"{path}/approve", {}).json()["status"] == "open"
    assert shop.balance() == "2000.00"
    assert shop.operator.get(f"/orders/{mismatch['order_no']}").json()["status"] == "settled"
    assert {row["sum"] for row in shop.admin.get("/trial-balance").json()["items"]} == {"0"}

    def logged() -> set[str]:
        rows = shop.admin.get("/logs", resource_id=correction["id"], limit=100).json()["items"]
        return {row["action"] for row in rows if row["log_type"] == "operation"}

    eventually(lambda: logged() == {"ledger.correct_mismatch", "ledger.approve_correction"})


def test_mismatches_are_closed_and_reopened_one_by_one_and_in_bulk(shop: Shop) -> None:
    first, second = shop.mismatch("1.00"), shop.mismatch("2.00")
    closed = shop.operator.post(f"/mismatches/{first['id']}/reconcile", WHY)
    assert (closed.status_code, closed.json()["status"]) == (200, "reconciled")
    assert shop.operator.post(f"/mismatches/{first['id']}/ignore", WHY).json()["code"] == "mismatch_not_open"
    body = WHY | {"act": "ignore", "ids": [first["id"], second["id"], "mis_none"]}
    answer = shop.operator.post("/mismatches/bulk", body, key="bulk-1" + shop.channel)
    assert [item.get("status") or item["error"]["code"] for item in answer.json()["items"]] == [
        "mismatch_not_open", "ignored", "mismatch_not_found",
    ]  # fmt: skip
    again = shop.operator.post("/mismatches/bulk", body, key="bulk-1" + shop.channel)
    assert (again.content, again.headers["Idempotent-Replayed"]) == (answer.content, "true")
    assert shop.operator.post(f"/mismatches/{second['id']}/reopen", WHY).json()["status"] == "open"
    denied = shop.operator.post("/mismatches/bulk", WHY | {"act": "correct", "to": "local", "ids": [second["id"]]})
    assert (denied.status_code, denied.json()["missing"]) == (403, "mismatches:admin")
    both = shop.admin.post("/mismatches/bulk", WHY | {"act": "correct", "to": "local", "ids": [second["id"]]})
    assert both.json() == {"items": [{"id": second["id"], "status": "corrected"}], "done": 1, "refused": 0}
    groups = shop.operator.get("/mismatches/groups", channel=shop.channel).json()["items"]
    assert {(g["difference"], g["count"]) for g in groups} == {("-1.00", 1), ("-2.00", 1)}
    csv = shop.operator.http.get(
        f"{shop.operator.url}/api/v1/mismatches?channel={shop.channel}", headers={"Accept": "text/csv"}, timeout=30
    )
    assert len(csv.text.splitlines()) == 3


def test_another_merchants_people_find_nothing(shop: Shop) -> None:
    mismatch = shop.mismatch("3.00")
    outsider = shop.platform.person(roles=["administrator"], merchants=[shop.platform.merchant()])
    assert outsider.get("/mismatches").json()["items"] == []
    assert outsider.get("/mismatches/groups").json()["items"] == []
    assert outsider.get("/corrections").json()["items"] == []
    for hidden in (mismatch["id"], "mis_none"):
        answers = [
            outsider.get(f"/mismatches/{hidden}"),
            outsider.post(f"/mismatches/{hidden}/reconcile", WHY),
            outsider.post(f"/mismatches/{hidden}/ignore", WHY),
            outsider.post(f"/mismatches/{hidden}/reopen", WHY),
            outsider.post(f"/mismatches/{hidden}/correct", WHY | {"to": "local"}),
            outsider.post(f"/mismatches/{hidden}/correct?dry_run=true", WHY | {"to": "local"}),
            outsider.post(f"/mismatches/{hidden}/approve", {}),
            outsider.post(f"/mismatches/{hidden}/reject", WHY),
        ]
        assert {(a.status_code, a.json()["code"]) for a in answers} == {(404, "mismatch_not_found")}
