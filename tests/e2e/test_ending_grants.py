"""A grant that ends by itself: used through the whole system while it lasts, and no longer."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.e2e.conftest import Platform, eventually

LASTS_SECONDS = 6
HOLDS_SECONDS_MAX = 5


def test_what_is_granted_for_a_time_opens_and_closes_for_one_token(platform: Platform) -> None:
    aurora, borealis = platform.merchant(), platform.merchant()
    somebody, user_id = platform.person_and_id(roles=["auditor"], merchants=[aurora])
    card = {"merchant_id": borealis, "bin": "45717360", "currency": "CNY", "holder_name": "Dora", "expiry": "12/30"}
    assert somebody.post("/cards", card).status_code == 403
    assert somebody.get(f"/merchants/{borealis}").status_code == 404

    ends_at = datetime.now(UTC) + timedelta(seconds=LASTS_SECONDS)
    wanted = [{"role": "operator"}, {"merchant_id": borealis}]
    answer = platform.admin.patch(
        f"/users/{user_id}", {"grants": [{**grant, "ends_at": ends_at.isoformat()} for grant in wanted]}
    )
    assert answer.status_code == 200, answer.text
    assert {(g["role"], g["merchant_id"]) for g in answer.json()["grants"]} == {("operator", None), (None, borealis)}
    assert somebody.get(f"/merchants/{borealis}").status_code == 200
    assert somebody.get("/me").json()["permissions"]["cards"] == "operate"
    assert somebody.post("/merchants", {"code": "X"}).status_code == 422  # past the permission, to the body

    time.sleep(max(0.0, (ends_at - datetime.now(UTC)).total_seconds()))
    eventually(
        lambda: (
            somebody.get(f"/merchants/{borealis}").status_code == 404
            and somebody.post("/merchants", {"code": "X"}).status_code == 403
        ),
        within_seconds=HOLDS_SECONDS_MAX,
    )
    assert somebody.get("/me").json()["permissions"]["cards"] == "read"
    assert somebody.get("/me").json()["merchants"] == [aurora]
    assert platform.admin.get(f"/users/{user_id}").json()["grants"] == []

    def told() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = platform.admin.get(
            "/logs", resource_id=user_id, action="users.end_due_grants"
        ).json()["items"]
        return rows if len(rows) == 2 else []

    assert {row["event"] for row in eventually(told)} == {"GrantEnded"}


def test_a_grant_is_a_role_or_a_merchant_and_lies_ahead(platform: Platform) -> None:
    _, user_id = platform.person_and_id(roles=[], merchants=[])
    for grant in (
        {"ends_at": "2999-01-01T00:00:00Z"},
        {"role": "operator", "merchant_id": "mer_1", "ends_at": "2999-01-01T00:00:00Z"},
        {"role": "operator", "ends_at": "2001-01-01T00:00:00Z"},
        {"role": "operator"},
    ):
        answer = platform.admin.patch(f"/users/{user_id}", {"grants": [grant]})
        assert answer.status_code == 422, grant
        assert "grants" in str(answer.json()["errors"])
