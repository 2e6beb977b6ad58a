"""Several instances of the scheduler at once, with connections and commits of their own."""

import collections
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa

from services.tasks.domain.runs import RunStatus
from services.tasks.models import TaskRun
from services.tasks.usecases import runs, scheduler
from services.tasks.usecases.scheduler import Outcome
from shared.contracts.tasks import AlreadyRunning, LeaseLost
from shared.passport import service_passport
from shared.rpc.wire import Call, current_call
from tests.services.tasks.conftest import TASK, events_in

INSTANCES = 6


def act_as(instance):
    current_call.set(Call(service="tasks", method="test", passport=service_passport(instance), arguments={}))


def add_tasks(transaction, count, *, concurrency=1):
    """Add tasks that are due now and then each minute."""
    with transaction() as session:
        session.execute(
            sa.text(
                "insert into tasks (name, description, enabled, schedule, timezone, timeout_s, retries, concurrency,"
                " next_run_at) select 'task_' || n, '', true, '* * * * *', 'UTC', 60, 1, :concurrency,"
                " date_trunc('minute', now()) from generate_series(1, :count) n"
            ),
            {"count": count, "concurrency": concurrency},
        )


def in_instances(work):
    """Do the same in several threads at once, each as another instance."""
    barrier = threading.Barrier(INSTANCES)

    def one(number):
        act_as(f"i{number}")
        barrier.wait(10)
        return work(f"i{number}")

    with ThreadPoolExecutor(INSTANCES) as pool:
        return list(pool.map(one, range(INSTANCES)))


def test_each_slot_is_opened_and_run_once_by_whichever_instance(transaction):
    add_tasks(transaction, 40)
    carried = collections.Counter()
    lock = threading.Lock()

    def work(instance):
        until = time.monotonic() + 20
        while sum(carried.values()) < 40 and time.monotonic() < until:
            with transaction() as session:
                scheduler.open_due_slots(session)
            with transaction() as session:
                claimed = scheduler.claim_run(session, owner=instance)
            if claimed is None:
                time.sleep(0.01)
                continue
            with lock:
                carried[claimed.id] += 1
            with transaction() as session:
                scheduler.finish_run(session, claimed, Outcome(RunStatus.SUCCEEDED, {}))

    in_instances(work)
    with transaction() as session:
        rows = session.execute(sa.select(TaskRun.task_name, TaskRun.scheduled_for, TaskRun.status)).all()
        started = collections.Counter(e["resource_id"] for e in events_in(session) if e["event"] == "TaskRunStarted")
    # A minute may have turned meanwhile, so that there can be a second slot of a task; each slot is there once.
    assert len(rows) >= 40
    assert len({(row.task_name, row.scheduled_for) for row in rows}) == len(rows)
    assert {row.status for row in rows} == {"succeeded"}
    assert set(carried.values()) == {1}
    assert started == carried


def test_no_more_of_a_task_run_at_once_than_it_allows(transaction, alice):
    add_tasks(transaction, 1, concurrency=3)
    act_as("setup")
    with transaction() as session:
        session.execute(sa.text("update tasks set enabled = false"))
        for _ in range(3):
            runs.run_task(session, alice, name="task_1")
        session.execute(sa.text("update tasks set concurrency = 10 where name = 'task_1'"))
        for _ in range(7):
            runs.run_task(session, alice, name="task_1")
        session.execute(sa.text("update tasks set concurrency = 2 where name = 'task_1'"))
    at_once, most, carried = 0, 0, 0
    lock = threading.Lock()

    def work(instance):
        nonlocal at_once, most, carried
        until = time.monotonic() + 30
        while carried < 10 and time.monotonic() < until:
            with transaction() as session:
                claimed = scheduler.claim_run(session, owner=instance)
            if claimed is None:
                time.sleep(0.005)
                continue
            with lock:
                at_once += 1
                most = max(most, at_once)
            while most < 2 and time.monotonic() < until:  # the first waits for the second, however slowly it comes
                time.sleep(0.005)
            time.sleep(random.uniform(0, 0.02))
            with lock:
                at_once -= 1
                carried += 1
            with transaction() as session:
                scheduler.finish_run(session, claimed, Outcome(RunStatus.SUCCEEDED, {}))

    in_instances(work)
    assert (carried, most) == (10, 2)


def test_of_many_who_run_a_task_by_hand_at_once_one_does(transaction, alice):
    def work(_instance):
        try:
            with transaction() as session:
                return runs.run_task(session, alice, name=TASK)["id"]
        except AlreadyRunning as refusal:
            return refusal

    results = in_instances(work)
    [run_id] = [r for r in results if isinstance(r, str)]
    assert {r.extra["run_id"] for r in results if not isinstance(r, str)} == {run_id}


def test_a_lost_run_is_taken_back_once_and_its_late_instance_changes_nothing(transaction, alice):
    act_as("setup")
    with transaction() as session:
        run_id = runs.run_task(session, alice, name=TASK)["id"]
        frozen = scheduler.claim_run(session, owner="frozen")
        session.execute(sa.text("update task_runs set lease_until = now() - interval '1 s'"))

    def work(instance):
        if instance == "i0":  # it wakes up and goes on, while the others find its lease run out
            try:
                with transaction() as session:
                    scheduler.finish_run(session, frozen, Outcome(RunStatus.SUCCEEDED, {}))
            except LeaseLost:
                return "refused"
            return "finished"
        with transaction() as session:
            return scheduler.mark_lost_runs(session)

    late, *others = in_instances(work)
    marked = [run for found in others for run in found]
    with transaction() as session:
        statuses = list(session.scalars(sa.select(TaskRun.status).order_by(TaskRun.attempt)))
        ends = [e["event"] for e in events_in(session) if e["event"] in ("TaskRunSucceeded", "TaskRunFailed")]
    # Whoever locked the row first has the word, and nobody else.
    if late == "finished":
        assert (marked, statuses, ends) == ([], ["succeeded"], ["TaskRunSucceeded"])
    else:
        assert (marked, statuses, ends) == ([run_id], ["lost", "queued"], ["TaskRunFailed"])


def test_an_instance_that_dies_holding_locks_stops_nobody(transaction, engine_of):
    add_tasks(transaction, 5)
    act_as("setup")
    connection = engine_of("tasks").connect()
    connection.execute(sa.text("select * from tasks where name = 'task_1' for update"))  # and is frozen here
    try:
        with transaction() as session:
            assert len(scheduler.open_due_slots(session)) == 4
        claimed = []
        for _ in range(6):
            with transaction() as session:
                claimed.append(scheduler.claim_run(session, owner="i1"))
        assert {c.task for c in claimed if c} == {"task_2", "task_3", "task_4", "task_5"}
    finally:
        connection.close()


def test_a_hundred_runs_that_are_due_at_once_are_carried_in_seconds(transaction):
    add_tasks(transaction, 100)
    act_as("i0")
    started = time.monotonic()
    with transaction() as session:
        opened = scheduler.open_due_slots(session)

    def work(instance):
        count = 0
        while True:
            with transaction() as session:
                claimed = scheduler.claim_run(session, owner=instance)
            if claimed is None:
                return count
            with transaction() as session:
                scheduler.finish_run(session, claimed, Outcome(RunStatus.SUCCEEDED, {}))
            count += 1

    carried = sum(in_instances(work)) + work("rest")
    assert carried == len(opened) == 100
    # The target is fifty a second; a machine that does much else at once may take many times that.
    assert time.monotonic() - started < 30
