"""Changing tasks, running them by hand, and each step of the scheduler, on a real PostgreSQL."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from services.tasks import queries
from services.tasks.domain.runs import RunStatus
from services.tasks.executors import BUILT_IN
from services.tasks.models import Task, TaskRun, TaskRunLog
from services.tasks.usecases import runs, scheduler, tasks
from services.tasks.usecases.scheduler import Outcome
from services.tasks.usecases.tasks import database_now
from shared.contracts.tasks import (
    AlreadyRunning,
    InvalidSchedule,
    LeaseLost,
    RunAlreadyFinished,
    TaskNotFound,
    TaskRunNotFound,
    UnknownTaskParameter,
    UnknownTimeZone,
)
from shared.errors import InvalidRequest, PermissionDenied
from shared.times import parse_rfc3339
from tests.services.tasks.conftest import TASK, events_in


def names(session):
    return [event["event"] for event in events_in(session)]


def make_due(session):
    """Let the task be due: it runs each minute, and nobody has looked at the present one."""
    task = session.get_one(Task, TASK)
    task.schedule = "* * * * *"
    task.next_run_at = database_now(session).replace(second=0, microsecond=0)
    session.flush()
    return task


def only_run(session, **where):
    return session.scalars(sa.select(TaskRun).filter_by(**where)).one()


def expire_lease(session, run_id):
    session.execute(
        sa.update(TaskRun).where(TaskRun.id == run_id).values(lease_until=sa.text("now() - interval '1 s'"))
    )
    session.expire_all()


# Changing tasks


def test_each_built_in_task_has_its_work_and_is_listed_with_its_schedule(session, alice):
    listed = {task["name"]: task for task in queries.list_tasks(session, alice)["items"]}
    assert listed.keys() == BUILT_IN.keys()
    task = listed[TASK]
    assert (task["name"], task["enabled"], task["timezone"], task["last_run"]) == (TASK, True, "UTC", None)


def test_a_new_schedule_counts_from_now_on(session, alice):
    view = tasks.update_task(session, alice, name=TASK, schedule="30 4 * * *", timezone="Asia/Shanghai", retries=3)
    assert view["retries"] == 3
    following = parse_rfc3339(view["next_run_at"])
    assert (following.hour, following.minute) == (20, 30)
    assert timedelta() < following - database_now(session) <= timedelta(days=1)
    [event] = events_in(session)
    assert event["event"] == "TaskUpdated"
    assert event["payload"]["changes"] == {
        "schedule": {"before": "*/5 * * * *", "after": "30 4 * * *"},
        "timezone": {"before": "UTC", "after": "Asia/Shanghai"},
        "retries": {"before": 2, "after": 3},
    }


def test_an_update_that_changes_nothing_tells_nothing(session, alice):
    tasks.update_task(session, alice, name=TASK, schedule="*/5 * * * *", timeout_s=600)
    assert names(session) == []


@pytest.mark.parametrize(
    ("change", "refusal"), [({"schedule": "every day"}, InvalidSchedule), ({"timezone": "Mars"}, UnknownTimeZone)]
)
def test_an_invalid_schedule_is_refused(session, alice, change, refusal):
    with pytest.raises(refusal):
        tasks.update_task(session, alice, name=TASK, **change)


def test_enabling_runs_nothing_by_itself(session, alice):
    tasks.disable_task(session, alice, name=TASK)
    assert session.get_one(Task, TASK).next_run_at is None
    assert scheduler.open_due_slots(session) == []
    view = tasks.enable_task(session, alice, name=TASK)
    assert parse_rfc3339(view["next_run_at"]) > database_now(session)
    assert scheduler.open_due_slots(session) == []
    tasks.enable_task(session, alice, name=TASK)
    assert names(session) == ["TaskDisabled", "TaskEnabled"]


def test_disabling_drops_what_waits_by_itself_but_not_what_was_asked_for(session, alice):
    tasks.update_task(session, alice, name=TASK, concurrency=2)
    make_due(session)
    [slot_id] = scheduler.open_due_slots(session)
    asked_for = runs.run_task(session, alice, name=TASK)["id"]
    tasks.disable_task(session, alice, name=TASK)
    assert only_run(session, id=slot_id).status == "cancelled"
    assert only_run(session, id=asked_for).status == "queued"


def test_what_does_not_exist_is_not_found(session, alice):
    for act in (
        lambda: queries.get_task(session, alice, name="nothing"),
        lambda: queries.list_task_runs(session, alice, name="nothing"),
        lambda: tasks.enable_task(session, alice, name="nothing"),
        lambda: runs.run_task(session, alice, name="nothing"),
    ):
        with pytest.raises(TaskNotFound):
            act()
    for act in (
        lambda: queries.get_task_run(session, alice, run_id="run_x"),
        lambda: queries.list_task_run_logs(session, alice, run_id="run_x"),
        lambda: runs.cancel_task_run(session, alice, run_id="run_x"),
    ):
        with pytest.raises(TaskRunNotFound):
            act()


def test_preview_shows_the_next_ten_times_as_the_clocks_will(session):
    preview = queries.preview_schedule(session, schedule="30 2 * * *", timezone="Europe/Berlin")
    assert len(preview["times"]) == 10
    assert preview["times"] == sorted(preview["times"])
    assert {local[11:16] for local in preview["local_times"]} <= {"02:30", "03:00"}


# Runs by hand


def test_a_run_by_hand_is_queued_and_a_second_one_refused(session, alice, bob):
    run = runs.run_task(session, bob, name=TASK)
    assert (run["status"], run["trigger"], run["attempt"], run["requested_by"]) == ("queued", "manual", 1, "usr_bob")
    with pytest.raises(AlreadyRunning) as refusal:
        runs.run_task(session, alice, name=TASK)
    assert refusal.value.extra == {"run_id": run["id"]}
    scheduler.claim_run(session, owner="i1")
    with pytest.raises(AlreadyRunning):
        runs.run_task(session, alice, name=TASK)
    assert names(session) == ["TaskRunRequested", "TaskRunStarted"]


def test_a_disabled_task_runs_by_hand(session, alice):
    tasks.disable_task(session, alice, name=TASK)
    run = runs.run_task(session, alice, name=TASK)
    assert scheduler.claim_run(session, owner="i1").id == run["id"]


def test_a_waiting_run_is_cancelled_at_once_and_not_twice(session, alice):
    run_id = runs.run_task(session, alice, name=TASK)["id"]
    assert runs.cancel_task_run(session, alice, run_id=run_id)["status"] == "cancelled"
    assert scheduler.claim_run(session, owner="i1") is None
    with pytest.raises(RunAlreadyFinished):
        runs.cancel_task_run(session, alice, run_id=run_id)


def test_a_running_run_hears_that_it_is_to_end(session, alice):
    run_id = runs.run_task(session, alice, name=TASK)["id"]
    claimed = scheduler.claim_run(session, owner="i1")
    assert scheduler.extend_lease(session, claimed) is False
    view = runs.cancel_task_run(session, alice, run_id=run_id)
    assert (view["status"], view["is_cancel_requested"]) == ("running", True)
    assert scheduler.extend_lease(session, claimed) is True
    scheduler.finish_run(session, claimed, Outcome(RunStatus.CANCELLED))
    assert names(session)[-1] == "TaskRunCancelled"
    assert session.scalar(sa.select(sa.func.count()).select_from(TaskRun)) == 1


# Slots


def test_a_slot_that_is_due_is_opened_once(session):
    make_due(session)
    [run_id] = scheduler.open_due_slots(session)
    run = only_run(session, id=run_id)
    assert (run.status, run.trigger, run.attempt, run.origin_id) == ("queued", "schedule", 1, run_id)
    assert timedelta() <= database_now(session) - run.scheduled_for < timedelta(seconds=60)
    assert session.get_one(Task, TASK).next_run_at == run.scheduled_for + timedelta(minutes=1)


def test_the_same_slot_cannot_be_opened_again_by_turning_the_clock_back(session):
    task = make_due(session)
    [run_id] = scheduler.open_due_slots(session)
    scheduler.finish_run(session, scheduler.claim_run(session, owner="i1"), Outcome(RunStatus.SUCCEEDED, {}))
    task.next_run_at = session.get_one(TaskRun, run_id).scheduled_for
    session.flush()
    scheduler.open_due_slots(session)
    slots = list(session.scalars(sa.select(TaskRun.scheduled_for)))
    assert len(slots) == len(set(slots))


def test_a_slot_that_nobody_looked_at_in_time_is_skipped(session):
    task = make_due(session)
    task.schedule = "0 0 1 1 *"
    task.next_run_at = database_now(session) - timedelta(hours=3)
    session.flush()
    assert scheduler.open_due_slots(session) == []
    assert session.get_one(Task, TASK).next_run_at > database_now(session)


def test_a_slot_is_skipped_while_the_task_still_runs(session, alice):
    runs.run_task(session, alice, name=TASK)
    scheduler.claim_run(session, owner="i1")
    make_due(session)
    assert scheduler.open_due_slots(session) == []
    assert session.get_one(Task, TASK).next_run_at > database_now(session)


def test_a_task_that_was_never_looked_at_waits_for_its_next_time(session):
    assert session.get_one(Task, TASK).next_run_at is None
    assert scheduler.open_due_slots(session) == []
    assert session.get_one(Task, TASK).next_run_at > database_now(session)


# Leases


def test_a_claimed_run_is_lent_for_a_time_and_to_nobody_else(session, alice):
    run_id = runs.run_task(session, alice, name=TASK)["id"]
    claimed = scheduler.claim_run(session, owner="i1")
    run = session.get_one(TaskRun, run_id)
    assert (run.status, run.lease_owner, run.fence) == ("running", "i1", claimed.fence)
    assert timedelta() < run.lease_until - database_now(session) <= scheduler.LEASE
    assert scheduler.claim_run(session, owner="i2") is None


def test_concurrency_bounds_what_runs_at_once(session, alice):
    tasks.update_task(session, alice, name=TASK, concurrency=2)
    for _ in range(2):
        runs.run_task(session, alice, name=TASK)
    with pytest.raises(AlreadyRunning):
        runs.run_task(session, alice, name=TASK)
    tasks.update_task(session, alice, name=TASK, concurrency=1)
    first = scheduler.claim_run(session, owner="i1")
    assert scheduler.claim_run(session, owner="i2") is None
    scheduler.finish_run(session, first, Outcome(RunStatus.SUCCEEDED, {}))
    assert scheduler.claim_run(session, owner="i2") is not None


def test_a_lost_run_is_marked_and_tried_again_with_the_next_attempt(session, alice):
    run_id = runs.run_task(session, alice, name=TASK)["id"]
    scheduler.claim_run(session, owner="dead")
    assert scheduler.mark_lost_runs(session) == []
    expire_lease(session, run_id)
    assert scheduler.mark_lost_runs(session) == [run_id]
    assert scheduler.mark_lost_runs(session) == []
    lost, again = only_run(session, id=run_id), only_run(session, attempt=2)
    assert (lost.status, lost.lease_until, lost.error) == ("lost", None, scheduler.LOST)
    assert (again.status, again.trigger, again.origin_id, again.requested_by) == (
        "queued",
        "retry",
        run_id,
        "usr_alice",
    )
    assert again.due_at == lost.finished_at + timedelta(seconds=5)
    assert scheduler.claim_run(session, owner="i2") is None  # not before it is due
    again.due_at = database_now(session)
    session.flush()
    assert scheduler.claim_run(session, owner="i2").attempt == 2
    failed = [e for e in events_in(session) if e["event"] == "TaskRunFailed"]
    assert [(e["payload"]["status"], e["payload"]["attempt"]) for e in failed] == [("lost", 1)]
    assert session.scalars(sa.select(TaskRunLog.message)).all() == [scheduler.LOST]


def test_whoever_lost_the_lease_writes_nothing_more(session, alice):
    run_id = runs.run_task(session, alice, name=TASK)["id"]
    frozen = scheduler.claim_run(session, owner="frozen")
    expire_lease(session, run_id)
    scheduler.mark_lost_runs(session)
    for write in (
        lambda: scheduler.extend_lease(session, frozen),
        lambda: scheduler.write_log(session, frozen, "still here", level="info"),
        lambda: scheduler.write_progress(session, frozen, done=1, total=2, message=""),
        lambda: scheduler.finish_run(session, frozen, Outcome(RunStatus.SUCCEEDED, {"late": True})),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert only_run(session, id=run_id).status == "lost"
    assert only_run(session, id=run_id).result is None


def test_a_lower_fencing_token_writes_nothing(session, alice):
    runs.run_task(session, alice, name=TASK)
    claimed = scheduler.claim_run(session, owner="i1")
    session.execute(sa.update(TaskRun).values(fence=claimed.fence + 1))
    session.expire_all()
    with pytest.raises(LeaseLost):
        scheduler.finish_run(session, claimed, Outcome(RunStatus.SUCCEEDED, {}))


def test_attempts_end_after_the_retries(session, alice):
    tasks.update_task(session, alice, name=TASK, retries=2)
    runs.run_task(session, alice, name=TASK)
    for _ in range(3):
        session.execute(sa.update(TaskRun).where(TaskRun.status == "queued").values(due_at=sa.func.clock_timestamp()))
        session.expire_all()
        claimed = scheduler.claim_run(session, owner="i1")
        scheduler.finish_run(session, claimed, Outcome(RunStatus.FAILED, error="no"))
    assert scheduler.claim_run(session, owner="i1") is None
    assert list(session.scalars(sa.select(TaskRun.attempt).order_by(TaskRun.attempt))) == [1, 2, 3]
    assert {run.status for run in session.scalars(sa.select(TaskRun))} == {"failed"}


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(RunStatus.SUCCEEDED, {}),
        Outcome(RunStatus.CANCELLED),
        Outcome(RunStatus.FAILED, {}, "broken", is_permanent=True),
    ],
)
def test_what_succeeded_was_cancelled_or_would_be_the_same_is_not_tried_again(session, alice, outcome):
    runs.run_task(session, alice, name=TASK)
    scheduler.finish_run(session, scheduler.claim_run(session, owner="i1"), outcome)
    assert session.scalar(sa.select(sa.func.count()).select_from(TaskRun)) == 1


def test_a_scheduled_run_of_a_task_that_was_disabled_is_not_tried_again(session, alice):
    make_due(session)
    scheduler.open_due_slots(session)
    claimed = scheduler.claim_run(session, owner="i1")
    tasks.disable_task(session, alice, name=TASK)
    scheduler.finish_run(session, claimed, Outcome(RunStatus.TIMED_OUT, error="slow"))
    assert session.scalar(sa.select(sa.func.count()).select_from(TaskRun)) == 1


# Reading


def test_the_log_of_a_run_is_read_in_order_page_by_page(session, alice):
    run_id = runs.run_task(session, alice, name=TASK)["id"]
    claimed = scheduler.claim_run(session, owner="i1")
    for number in range(3):
        scheduler.write_log(session, claimed, f"line {number}", level="info")
    page = queries.list_task_run_logs(session, alice, run_id=run_id, limit=2)
    assert [line["message"] for line in page["items"]] == ["line 0", "line 1"]
    page = queries.list_task_run_logs(session, alice, run_id=run_id, cursor=page["next_cursor"])
    assert [line["message"] for line in page["items"]] == ["line 2"]
    assert (page["next_cursor"], page["run_status"]) == (None, "running")
    scheduler.finish_run(session, claimed, Outcome(RunStatus.SUCCEEDED, {}))
    assert queries.list_task_run_logs(session, alice, run_id=run_id)["run_status"] == "succeeded"


def test_a_task_without_parameters_takes_none(session, alice):
    with pytest.raises(UnknownTaskParameter) as refusal:
        runs.run_task(session, alice, name=TASK, params={"day": "2026-11-24"})
    assert refusal.value.errors == {"params.day": ["Unknown parameter."]}
    assert runs.run_task(session, alice, name=TASK, params={})["status"] == "queued"


def test_what_reaches_over_all_merchants_is_shown_to_who_sees_all(session, alice, bob):
    run_id = runs.run_task(session, bob, name=TASK)["id"]
    claimed = scheduler.claim_run(session, owner="i1")
    scheduler.write_progress(session, claimed, done=1, total=1, message="x")
    scheduler.finish_run(session, claimed, Outcome(RunStatus.FAILED, {"broken": [{}]}, "broken", is_permanent=True))
    whole = queries.get_task_run(session, alice, run_id=run_id)
    assert whole["result"] == {"broken": [{}]}
    assert whole["progress"] == {"done": 1, "total": 1, "message": "x"}
    cut = queries.get_task_run(session, bob, run_id=run_id)
    assert (cut["status"], cut["result"], cut["progress"], cut["error"]) == ("failed", None, None, None)
    assert queries.get_task(session, bob, name=TASK)["last_run"]["result"] is None
    with pytest.raises(PermissionDenied):
        queries.list_task_run_logs(session, bob, run_id=run_id)


def test_runs_are_listed_newest_first_page_by_page(session, alice):
    made = []
    for _ in range(5):
        made.append(runs.run_task(session, alice, name=TASK)["id"])
        runs.cancel_task_run(session, alice, run_id=made[-1])
    last = runs.run_task(session, alice, name=TASK)["id"]
    seen, cursor = [], None
    while True:
        page = queries.list_task_runs(session, alice, name=TASK, limit=2, cursor=cursor)
        seen += [run["id"] for run in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == sorted([*made, last], reverse=True)
    assert [r["id"] for r in queries.list_task_runs(session, alice, name=TASK, status="queued")["items"]] == [last]
    with pytest.raises(InvalidRequest):
        queries.list_task_runs(session, alice, name=TASK, cursor="WzFd")
