"""A task by hand, by cron, over a ledger that was tampered with, and through the death of its instance."""

import itertools
import threading
from datetime import UTC, datetime

import psycopg
import pytest

from operations.databases import service_database
from tests.e2e.conftest import Api, Platform, eventually

CHECK = "/tasks/balance_check"


@pytest.fixture(autouse=True)
def as_it_was(platform: Platform):
    """Have no slot of the task come in between, and leave it as a fresh system has it."""
    platform.admin.patch(CHECK, {"schedule": "0 0 1 1 *"})
    yield
    platform.admin.patch(CHECK, {"schedule": "*/5 * * * *", "timezone": "UTC", "retries": 2})
    platform.admin.post(f"{CHECK}/enable")


def finished(api: Api, run_id: str) -> dict:
    def run() -> dict | None:
        found = api.get(f"/task-runs/{run_id}").json()
        return found if found["finished_at"] else None

    return dict(eventually(run))


def run_by_hand(api: Api) -> dict:
    answer = eventually(lambda: (a := api.post(f"{CHECK}/run")).status_code == 202 and a)
    return dict(answer.json())


def test_a_balance_check_by_hand_proves_the_ledger_and_is_logged(platform: Platform) -> None:
    platform.recharge(platform.merchant(), "u1", "12.50")
    run = run_by_hand(platform.admin)
    assert (run["trigger"], run["attempt"]) == ("manual", 1)
    followed = platform.admin.get(f"/task-runs/{run['id']}/logs", follow="true")
    assert followed.headers["Content-Type"].startswith("text/event-stream")
    assert 'event: end\ndata: {"status":"succeeded"}' in followed.text
    run = finished(platform.admin, run["id"])
    assert run["status"] == "succeeded"
    assert run["result"]["accounts_checked"] >= 1
    assert run["result"]["broken"] == []
    assert platform.admin.get(CHECK).json()["last_run"]["id"] == run["id"]
    lines = platform.admin.get(f"/task-runs/{run['id']}/logs").json()["items"]
    assert f"Checked {run['result']['accounts_checked']} accounts" in lines[-1]["message"]

    def acts() -> set[str]:
        rows = platform.admin.get("/logs", resource_id=run["id"]).json()["items"]
        return {row["action"] for row in rows if row["log_type"] != "api_call"}

    eventually(lambda: {"tasks.run_task", "tasks.carry_out_run"} <= acts())


def test_cron_runs_each_slot_once_and_enabling_runs_nothing(platform: Platform) -> None:
    platform.admin.post(f"{CHECK}/disable")
    platform.admin.patch(CHECK, {"schedule": "* * * * *"})
    before = {run["id"] for run in platform.admin.get(f"{CHECK}/runs", limit=500).json()["items"]}
    enabled = platform.admin.post(f"{CHECK}/enable").json()
    due = datetime.fromisoformat(enabled["next_run_at"])
    assert due > datetime.now(UTC)

    def by_cron() -> list[dict]:
        runs = platform.admin.get(f"{CHECK}/runs", limit=500).json()["items"]
        return [run for run in runs if run["id"] not in before]

    runs = eventually(lambda: [run for run in by_cron() if run["finished_at"]], within_seconds=75)
    assert [(run["trigger"], run["status"]) for run in runs] == [("schedule", "succeeded")]
    assert datetime.fromisoformat(runs[0]["scheduled_for"]) == due
    assert datetime.fromisoformat(runs[0]["started_at"]) >= due


def test_a_ledger_that_was_tampered_with_makes_the_check_fail_and_name_the_account(platform: Platform) -> None:
    merchant_id = platform.merchant()
    platform.recharge(merchant_id, "u1", "12.50")
    system = platform.system
    owner = service_database(system.home, system.servers.database_url, "ledger").owner_url
    change = "update accounts set balance = balance + %s where merchant_id = %s"
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(change, (1, merchant_id))
        try:
            run = finished(platform.admin, run_by_hand(platform.admin)["id"])
        finally:
            connection.execute(change, (-1, merchant_id))
    assert run["status"] == "failed"
    assert merchant_id in {fault["merchant_id"] for fault in run["result"]["broken"]}
    # Nothing is tried again: it would find the same.
    runs = platform.admin.get(f"{CHECK}/runs").json()["items"]
    assert [r["id"] for r in runs if r["origin_id"] == run["id"]] == [run["id"]]
    failed = eventually(lambda: platform.admin.get("/logs", resource_id=run["id"], q="Faults").json()["items"])
    assert failed
    stranger = platform.person(roles=["operator"], merchants=[platform.merchant()])
    seen = stranger.get(f"/task-runs/{run['id']}").json()
    assert (seen["status"], seen["result"], seen["error"]) == ("failed", None, None)
    assert stranger.get(f"/task-runs/{run['id']}/logs").status_code == 403


def test_a_task_survives_the_death_of_its_service(platform: Platform) -> None:
    platform.system.kill("tasks")
    answer = eventually(lambda: (a := platform.admin.post(f"{CHECK}/run")).status_code == 202 and a, within_seconds=40)
    assert finished(platform.admin, answer.json()["id"])["status"] == "succeeded"


def test_many_who_run_it_at_once_start_one(platform: Platform) -> None:
    finished(platform.admin, run_by_hand(platform.admin)["id"])
    answers: list = []
    threads = [
        threading.Thread(target=lambda: answers.append(Api(platform.admin.url, token(platform)).post(f"{CHECK}/run")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses.count(202) >= 1
    assert set(statuses) <= {202, 409}
    started = [answer.json()["id"] for answer in answers if answer.status_code == 202]
    times = sorted((r["started_at"], r["finished_at"]) for r in (finished(platform.admin, i) for i in started))
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(times))


def token(platform: Platform) -> str:
    return str(platform.admin.http.headers["Authorization"]).removeprefix("Bearer ")
