"""Carries out the runs that this instance claims, one at a time a worker, and holds their leases meanwhile.

A lease is extended by a thread of its own until the run's end is written, whatever the work waits for and also while
the process shuts down. Nothing is written in the transaction that claims: a killed process leaves a run that
another instance finds by its lease.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Self

import structlog
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from services.tasks.domain.runs import RunStatus, Trigger
from services.tasks.executors import Cancelled, Executor, Service, TaskFailed
from services.tasks.usecases.scheduler import (
    LEASE,
    ClaimedRun,
    Outcome,
    claim_run,
    extend_lease,
    finish_run,
    write_log,
    write_progress,
)
from shared.contracts.tasks import LeaseLost
from shared.errors import DeadlineExceeded, ServiceError, Unavailable
from shared.ids import new_id
from shared.passport import Passport, service_passport
from shared.rpc.wire import Call, current_call

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = LEASE.total_seconds() / 6
FINISH_PAUSE_SECONDS = 1.0
TIMED_OUT = "The task took longer than its timeout."
UNEXPECTED = "The task ended with an unexpected error; the log of the process says more."

Transaction = Callable[[], AbstractContextManager[Session]]


class Heartbeat:
    """Extends the lease of one run until left. Use as a context."""

    def __init__(self, transaction: Transaction, claimed: ClaimedRun) -> None:
        self._transaction = transaction
        self._claimed = claimed
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name=f"heartbeat-{claimed.id}")
        self.is_cancel_requested = False
        self.is_lost = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()

    def beat(self) -> None:
        """Extend the lease once, and hear whether the run was cancelled or taken away."""
        try:
            with self._transaction() as session:
                self.is_cancel_requested = extend_lease(session, self._claimed)
        except LeaseLost:
            self.is_lost = True
        except (Unavailable, SQLAlchemyError) as error:
            log.warning("lease could not be extended", run=self._claimed.id, error=type(error).__name__)

    def _beat(self) -> None:
        while not self.is_lost and not self._left.wait(HEARTBEAT_SECONDS):
            self.beat()


class RunInHand:
    """What an executor sees of its run: each write is a transaction of its own, under the fencing token."""

    def __init__(self, transaction: Transaction, claimed: ClaimedRun, heartbeat: Heartbeat, passport: Passport) -> None:
        self.passport = passport
        self.is_by_hand = claimed.trigger == Trigger.MANUAL
        self._transaction = transaction
        self._claimed = claimed
        self._heartbeat = heartbeat
        self._give_up_at = time.monotonic() + claimed.timeout_s

    def seconds_left(self) -> float:
        """Return how long the task may still take. Raises: DeadlineExceeded when that is over."""
        left = self._give_up_at - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(TIMED_OUT)
        return left

    @property
    def is_out_of_time(self) -> bool:
        """Whether the timeout has passed."""
        return time.monotonic() >= self._give_up_at

    def key_of(self, item: str) -> str:
        """Return the idempotency key of one side effect of this run."""
        return f"{self._claimed.id}:{item}"

    def log(self, message: str, *, level: str = "info") -> None:
        """Write a line into the run's log. Raises: LeaseLost."""
        with self._transaction() as session:
            write_log(session, self._claimed, message, level=level)

    def progress(self, done: int, total: int | None, message: str = "") -> None:
        """Say how far the run is. Raises: LeaseLost."""
        with self._transaction() as session:
            write_progress(session, self._claimed, done=done, total=total, message=message)

    def check(self) -> None:
        """End here if the run was cancelled or taken away. Raises, in order: LeaseLost, Cancelled."""
        self._heartbeat.beat()
        if self._heartbeat.is_lost:
            raise LeaseLost
        if self._heartbeat.is_cancel_requested:
            raise Cancelled


class Worker:
    """Claims runs and carries them out."""

    def __init__(
        self,
        transaction: Transaction,
        *,
        owner: str,
        executors: Mapping[str, Executor],
        services: Mapping[str, Service],
    ) -> None:
        """Prepare a worker.

        owner: the instance's name, as people see it beside a run.
        executors: by the name of the task.
        services: what executors may call, by the name of the service.
        """
        self._transaction = transaction
        self._owner = owner
        self._executors = executors
        self._services = services

    def run_next(self) -> bool:
        """Claim the next run that is due and carry it out. Returns: whether there was one."""
        passport = service_passport("tasks", request_id=new_id("req"))
        token = current_call.set(Call(service="tasks", method="carry_out_run", passport=passport, arguments={}))
        try:
            with self._transaction() as session:
                claimed = claim_run(session, owner=self._owner)
            if claimed is None:
                return False
            with Heartbeat(self._transaction, claimed) as heartbeat:
                outcome = self._carry_out(claimed, RunInHand(self._transaction, claimed, heartbeat, passport))
                if outcome is not None:
                    self._finish(claimed, outcome, heartbeat)
            return True
        finally:
            current_call.reset(token)

    def _carry_out(self, claimed: ClaimedRun, run: RunInHand) -> Outcome | None:
        """Do the work. Returns: how it ended; None when the run is not ours any more."""
        try:
            result = self._executors[claimed.task](run, self._services)
        except LeaseLost:
            log.warning("run was taken away", run=claimed.id, task=claimed.task)
            return None
        except Cancelled:
            return Outcome(RunStatus.CANCELLED)
        except TaskFailed as failure:
            return Outcome(RunStatus.FAILED, failure.result, str(failure), failure.is_permanent)
        except DeadlineExceeded as failure:
            if run.is_out_of_time:
                return Outcome(RunStatus.TIMED_OUT, error=TIMED_OUT)
            return Outcome(RunStatus.FAILED, error=failure.detail)
        except ServiceError as failure:
            return Outcome(RunStatus.FAILED, error=f"{failure.code}: {failure.detail}")
        except Exception:
            log.exception("task failed unexpectedly", run=claimed.id, task=claimed.task)
            return Outcome(RunStatus.FAILED, error=UNEXPECTED)
        return Outcome(RunStatus.SUCCEEDED, result)

    def _finish(self, claimed: ClaimedRun, outcome: Outcome, heartbeat: Heartbeat) -> None:
        """Write the run's end, however long the database is away, as long as the run is ours."""
        while not heartbeat.is_lost:
            try:
                with self._transaction() as session:
                    finish_run(session, claimed, outcome)
            except LeaseLost:
                log.warning("run was taken away before its end", run=claimed.id, task=claimed.task)
                return
            except (Unavailable, OperationalError) as error:
                log.warning("end of run waits for the database", run=claimed.id, error=type(error).__name__)
                time.sleep(FINISH_PAUSE_SECONDS)
            except (SQLAlchemyError, TypeError):  # what the executor returned cannot be kept
                log.exception("end of run cannot be written", run=claimed.id, task=claimed.task)
                outcome = Outcome(RunStatus.FAILED, error=UNEXPECTED)
            else:
                return


def look_once(transaction: Transaction, look: Callable[[Session], Any]) -> None:
    """Do one of the scheduler's looks; a database that is away is looked at again with the next tick."""
    try:
        with transaction() as session:
            look(session)
    except (Unavailable, SQLAlchemyError) as error:
        log.warning("the scheduler waits for the database", error=type(error).__name__)
