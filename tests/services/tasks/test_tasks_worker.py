"""Carrying out runs: what an executor sees, how it ends, and what happens when its lease or its database goes."""

import threading
import time

import pytest
import sqlalchemy as sa
import structlog

from services.tasks import worker as worker_module
from services.tasks.executors import BUILT_IN, TaskFailed, balance_check
from services.tasks.models import TaskRun, TaskRunLog
from services.tasks.usecases import runs, scheduler
from services.tasks.worker import Worker
from shared.errors import DeadlineExceeded, Unavailable
from tests.services.tasks.conftest import TASK, events_in


class Ledger:
    """Answers `verify_ledger` as it is told, and remembers how it was asked."""

    def __init__(self, answer) -> None:
        self.answer = answer
        self.asked = []

    def call(self, method, **arguments):
        self.asked.append((method, arguments))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer() if callable(self.answer) else self.answer


SOUND = {"ok": True, "mode": "full", "accounts": 7, "entries": 90, "faults": [], "fault_count": 0, "verified_at": ""}
FAULT = {"kind": "gap", "detail": "version 3 is missing", "account_id": 5, "entry_id": None, "merchant_id": "mer_a"}
BROKEN = SOUND | {"ok": False, "faults": [FAULT], "fault_count": 1}


@pytest.fixture
def carry_out(transaction, alice):
    """Ask for a run by hand and carry it out. Returns: the run."""

    def run(executor=balance_check, ledger=None, before=lambda run_id: None):
        with transaction() as session:
            run_id = runs.run_task(session, alice, name=TASK)["id"]
        before(run_id)
        services = {"ledger": ledger or Ledger(SOUND)}
        worker = Worker(transaction, owner="i1", executors={TASK: executor}, services=services)
        with structlog.testing.capture_logs():  # drawing a traceback takes longer than the run
            assert worker.run_next() is True
        with transaction() as session:
            return session.get_one(TaskRun, run_id)

    return run


def test_nothing_due_is_nothing_done(transaction):
    assert Worker(transaction, owner="i1", executors=BUILT_IN, services={}).run_next() is False


def test_a_sound_ledger_makes_the_balance_check_succeed(carry_out, transaction):
    ledger = Ledger(SOUND)
    run = carry_out(ledger=ledger)
    assert run.status == "succeeded"
    assert run.result == {"mode": "full", "accounts_checked": 7, "entries_checked": 90, "broken": []}
    assert run.progress == {"done": 1, "total": 1, "message": "done"}
    [(method, asked)] = ledger.asked
    assert (method, asked["mode"]) == ("verify_ledger", "full")  # asked for by hand
    assert asked["idempotency_key"] == f"{run.id}:verify_ledger"
    assert 590 < asked["timeout"] <= 600
    assert asked["passport"].actor_id == "service:tasks"
    with transaction() as session:
        lines = session.scalars(sa.select(TaskRunLog.message).order_by(TaskRunLog.id)).all()
        names = [e["event"] for e in events_in(session)]
        requests = {e["request_id"] for e in events_in(session)[1:]}
    assert lines == ["The ledger proves every account.", "Checked 7 accounts with 90 entries."]
    assert names == ["TaskRunRequested", "TaskRunStarted", "TaskRunSucceeded"]
    assert requests == {asked["passport"].request_id}


def test_a_check_at_its_time_leaves_it_to_the_ledger_how_much_is_due(carry_out, transaction):
    def as_if_scheduled(run_id):
        with transaction() as session:
            session.execute(sa.update(TaskRun).where(TaskRun.id == run_id).values(trigger="schedule"))

    ledger = Ledger(SOUND)
    carry_out(ledger=ledger, before=as_if_scheduled)
    assert [asked["mode"] for _, asked in ledger.asked] == ["due"]


def test_a_broken_ledger_makes_it_fail_with_what_is_broken_and_no_retry(carry_out, transaction):
    run = carry_out(ledger=Ledger(BROKEN))
    assert (run.status, run.error) == ("failed", "Faults found in the ledger: 1.")
    assert run.result == {"mode": "full", "accounts_checked": 7, "entries_checked": 90, "broken": [FAULT]}
    with transaction() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(TaskRun)) == 1
        failure = events_in(session)[-1]
    assert (failure["event"], failure["payload"]["status"]) == ("TaskRunFailed", "failed")
    assert failure["payload"]["reason"] == "Faults found in the ledger: 1."


def test_a_ledger_that_is_down_makes_it_fail_and_be_tried_again(carry_out, transaction):
    run = carry_out(ledger=Ledger(Unavailable("ledger is not running.")))
    assert (run.status, run.error) == ("failed", "unavailable: ledger is not running.")
    with transaction() as session:
        assert session.scalars(sa.select(TaskRun.attempt).order_by(TaskRun.attempt)).all() == [1, 2]


def test_the_call_is_made_outside_any_transaction(carry_out, engine_of):
    def no_transaction_is_open():
        with engine_of("tasks").connect() as connection:
            idle = "state = 'idle in transaction' and datname = current_database()"
            assert connection.scalar(sa.text(f"select count(*) from pg_stat_activity where {idle}")) == 0
        return SOUND

    assert carry_out(ledger=Ledger(no_transaction_is_open)).status == "succeeded"


def test_a_deadline_that_passed_is_a_timeout_and_another_ones_is_a_failure(carry_out, transaction):
    with transaction() as session:
        session.execute(sa.text("update tasks set timeout_s = 1, retries = 0"))

    def too_slow():
        time.sleep(1.05)
        raise DeadlineExceeded

    assert carry_out(ledger=Ledger(too_slow)).status == "timed_out"
    assert carry_out(ledger=Ledger(DeadlineExceeded())).status == "failed"


def test_an_unexpected_error_tells_nothing_of_itself(carry_out):
    def bug(run, services):
        raise RuntimeError("select * from secrets where password = 'hunter2'")

    run = carry_out(bug)
    assert (run.status, run.error) == ("failed", worker_module.UNEXPECTED)


def test_a_run_that_is_cancelled_meanwhile_ends_as_cancelled(carry_out, transaction, alice):
    def cancelled_while_asked():
        with transaction() as session:
            [run_id] = session.scalars(sa.select(TaskRun.id).where(TaskRun.status == "running"))
            runs.cancel_task_run(session, alice, run_id=run_id)
        return SOUND

    run = carry_out(ledger=Ledger(cancelled_while_asked))
    assert (run.status, run.result) == ("cancelled", None)


def test_a_run_that_was_taken_away_meanwhile_stays_as_its_taker_left_it(carry_out, transaction):
    def lost_while_asked():
        with transaction() as session:
            session.execute(sa.text("update task_runs set lease_until = now() - interval '1 s'"))
        with transaction() as session:
            scheduler.mark_lost_runs(session)
        return SOUND

    run = carry_out(ledger=Ledger(lost_while_asked))
    assert (run.status, run.result) == ("lost", None)


def test_the_lease_is_extended_as_long_as_the_work_goes_on(carry_out, transaction, monkeypatch):
    monkeypatch.setattr(worker_module, "HEARTBEAT_SECONDS", 0.05)

    def lease():
        with transaction() as session:
            return session.scalar(sa.select(TaskRun.lease_until).where(TaskRun.status == "running"))

    def long_work(run, services):
        first = lease()
        time.sleep(0.5)
        return {"extended_seconds": (lease() - first).total_seconds()}

    before = threading.active_count()
    assert carry_out(long_work).result["extended_seconds"] > 0.2
    assert threading.active_count() == before


def test_the_end_of_a_run_waits_for_a_database_that_is_away(transaction, alice, monkeypatch):
    monkeypatch.setattr(worker_module, "FINISH_PAUSE_SECONDS", 0.01)
    with transaction() as session:
        run_id = runs.run_task(session, alice, name=TASK)["id"]
    away = {"times": 0}

    def sometimes_away():
        if away["times"] > 0:
            away["times"] -= 1
            raise Unavailable
        return transaction()

    def work(run, services):
        away["times"] = 3
        return {"done": True}

    assert Worker(sometimes_away, owner="i1", executors={TASK: work}, services={}).run_next() is True
    with transaction() as session:
        assert session.get_one(TaskRun, run_id).status == "succeeded"
    assert away["times"] == 0


@pytest.mark.parametrize("result", [{"nul": "\x00"}, {"set": {1}}])
def test_a_result_that_cannot_be_kept_is_a_failure(carry_out, result):
    run = carry_out(lambda run, services: result)
    assert (run.status, run.result, run.error) == ("failed", None, worker_module.UNEXPECTED)


def test_a_failure_may_say_that_trying_again_helps(carry_out, transaction):
    def flaky(run, services):
        raise TaskFailed("half of it", result={"half": True}, is_permanent=False)

    assert carry_out(flaky).result == {"half": True}
    with transaction() as session:
        assert session.scalars(sa.select(TaskRun.attempt).order_by(TaskRun.attempt)).all() == [1, 2]
