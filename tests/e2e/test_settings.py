"""A change of a parameter: HTTP, bus, database, event, and every instance of who reads it, within five seconds."""

import secrets
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Platform, eventually

KEY = "ledger.large_change_threshold"
PATH = f"/settings/parameters/{KEY}"


def version(platform: Platform) -> int:
    return int(platform.admin.get(PATH).json()["version"])


def test_change_reaches_the_ledger_within_five_seconds_and_is_logged_with_its_reason(platform: Platform) -> None:
    merchant_id, reason = platform.merchant(), f"Busy season {secrets.token_hex(4)}"
    change = {"value": "77.00", "reason": reason, "expected_version": version(platform)}
    answer = platform.admin.put(PATH, change)
    changed_at = time.monotonic()
    assert (answer.status_code, answer.json()["value"]) == (200, "77.00"), answer.text

    def large_change_is_told() -> bool:
        assert platform.recharge(merchant_id, "reader", "77.00").status_code == 201
        rows = platform.admin.get("/logs", merchant_id=merchant_id, service="ledger", limit=100).json()["items"]
        return any(row["event"] == "LargeChangeDetected" for row in rows)

    eventually(large_change_is_told, within_seconds=10)
    assert time.monotonic() - changed_at < 6, "five seconds, and one for the log"

    def logged() -> list[dict]:
        return [
            row
            for row in platform.admin.get("/logs", resource_id=KEY, type="data_change").json()["items"]
            if row["reason"] == reason
        ]

    (row,) = eventually(logged)
    assert (row["action"], row["changes"]["value"]["after"]) == ("settings.change_parameter", "77.00")

    before = row["changes"]["value"]["before"]
    back = {"version": change["expected_version"], "reason": "As it was"}
    assert platform.admin.post(f"{PATH}/rollback", back).json()["value"] == before
    newest, *_ = platform.admin.get(f"{PATH}/history").json()["items"]
    assert (newest["value"], newest["previous_value"], newest["reason"]) == (before, "77.00", "As it was")


@pytest.fixture
def two_ledgers(platform: Platform) -> Iterator[None]:
    """Run two instances of the ledger for as long as the test."""
    platform.system.scale("ledger", 2)
    yield
    platform.system.scale("ledger", 1)


@pytest.mark.usefixtures("two_ledgers")
def test_change_is_in_force_at_every_instance_five_seconds_later(platform: Platform) -> None:
    merchant_id, seen = platform.merchant(), version(platform)
    answer = platform.admin.put(PATH, {"value": "55.00", "reason": "x", "expected_version": seen})
    assert answer.status_code == 200, answer.text
    time.sleep(5)
    posted = [platform.recharge(merchant_id, f"u{n}", "55.00").json()["entry_id"] for n in range(20)]

    def told() -> set[str]:
        rows = platform.admin.get("/logs", merchant_id=merchant_id, service="ledger", limit=500).json()["items"]
        return {row["resource_id"] for row in rows if row["event"] == "LargeChangeDetected"}

    # Calls go to both instances in turn: one that had not heard would miss its half.
    eventually(lambda: told() == set(posted), within_seconds=10)
    assert platform.admin.post(f"{PATH}/rollback", {"version": seen, "reason": "As it was"}).status_code == 200


def test_change_against_a_stale_version_is_a_conflict(platform: Platform) -> None:
    stale = version(platform) + 1
    answer = platform.admin.put(PATH, {"value": "5.00", "reason": "x", "expected_version": stale})
    assert (answer.status_code, answer.json()["code"]) == (409, "stale_version")


@pytest.mark.parametrize(("value", "status"), [(5, 422), (5.5, 422), ("0.00", 422), ({"a": 1}, 422)])
def test_value_that_the_parameter_cannot_take_is_refused(platform: Platform, value: object, status: int) -> None:
    answer = platform.admin.put(PATH, {"value": value, "reason": "x", "expected_version": version(platform)})
    assert answer.status_code == status
    assert "value" in answer.json()["errors"]
    preview = platform.admin.post(f"{PATH}/preview", {"value": value})
    assert (preview.status_code, preview.json()["is_valid"]) == (200, False)


def test_who_may_only_read_settings_reads_them_and_changes_none(platform: Platform) -> None:
    operator = platform.person(roles=["operator"], merchants="all")
    assert operator.get(PATH).status_code == 200
    answer = operator.put(PATH, {"value": "5.00", "reason": "x", "expected_version": 0})
    assert (answer.status_code, answer.json()["missing"]) == (403, "settings:admin")
    assert operator.get("/settings/parameters/no.such").status_code == 404
