"""Granted against used, by the audit's figures: somebody works, is shrunk to what they used, and works on."""

from typing import Any

from tests.e2e.conftest import Platform, eventually


def test_somebody_is_shrunk_to_what_they_used_and_works_on(platform: Platform) -> None:
    merchant = platform.merchant()
    somebody, user_id = platform.person_and_id(roles=["administrator"], merchants=[merchant])
    assert somebody.get("/cards").status_code == 200
    assert somebody.get("/balance-logs").status_code == 200
    adjust = {"merchant_id": merchant, "user_id": "u1", "type": 341, "amount": "5.00", "currency": "CNY"}
    adjusted = somebody.post("/balance-changes", adjust | {"reason": "a gift"})
    assert adjusted.status_code == 201, adjusted.text

    def report() -> dict[str, Any]:
        found: dict[str, Any] = platform.admin.get(f"/users/{user_id}/least-privilege").json()
        return found if {found["least"]["cards"], found["least"]["ledger"]} == {"read", "admin"} else {}

    found = eventually(report)  # as soon as the log has it
    assert {level for module, level in found["least"].items() if module not in ("cards", "ledger")} == {"none"}
    assert {"cards:admin", "users:admin", "settings:admin"} <= set(found["excess"])
    assert "ledger:admin" not in found["excess"]  # which the adjustment needed, though its route asks for less
    listed = platform.admin.get("/users/least-privilege", q=found["username"]).json()["items"]
    assert [row["excess"] for row in listed] == [found["excess"]]

    assert platform.admin.post(f"/users/{user_id}/shrink").status_code == 422  # it takes a reason
    shrunk = platform.admin.post(f"/users/{user_id}/shrink", {"reason": "quarterly review"})
    assert (shrunk.status_code, shrunk.json()["roles"]) == (200, [f"least-{found['username']}"])
    assert somebody.get("/cards").status_code == 200
    assert somebody.post("/balance-changes", adjust | {"reason": "another"}).status_code == 201
    refused = somebody.post("/cards", {"bin": "400000", "holder_name": "Dora", "currency": "CNY"})
    assert (refused.status_code, refused.json()["missing"]) == (403, "cards:operate")
    assert somebody.get("/users").status_code == 403

    def told() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = platform.admin.get("/logs", resource_id=user_id, action="users.*").json()["items"]
        return [row for row in rows if (row["event"], row["log_type"]) == ("UserShrunk", "operation")]

    [row] = eventually(told)
    assert row["reason"] == "quarterly review"
