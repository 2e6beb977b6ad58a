"""The tasks service: what it answers, and the ticks by which it looks for something to run."""

import time
from typing import Any

from sqlalchemy.orm import Session

from services.tasks import queries
from services.tasks.executors import BUILT_IN
from services.tasks.usecases import runs, scheduler, tasks
from services.tasks.worker import Worker, look_once
from shared.config import process_config
from shared.contracts.tasks import (
    SchedulePreview,
    TaskPage,
    TaskRunLogPage,
    TaskRunPage,
    TaskRunView,
    TaskView,
)
from shared.database import Database
from shared.errors import Unavailable
from shared.passport import Passport
from shared.rpc.entrypoints import RpcClient, command, query
from shared.ticks import every

TICK_SECONDS = 1.0


class TasksService:
    """Tasks by schedule and by hand, each slot once, whoever dies meanwhile."""

    name = "tasks"
    database = Database()
    ledger = RpcClient("ledger")

    @query("tasks:read")
    def list_tasks(self, session: Session, passport: Passport, **page: Any) -> TaskPage:
        return queries.list_tasks(session, passport, **page)

    @query("tasks:read")
    def get_task(self, session: Session, passport: Passport, *, name: str) -> TaskView:
        return queries.get_task(session, passport, name=name)

    @query("tasks:read")
    def preview_schedule(
        self, session: Session, passport: Passport, *, schedule: str, timezone: str
    ) -> SchedulePreview:
        return queries.preview_schedule(session, schedule=schedule, timezone=timezone)

    @command("tasks:admin")
    def update_task(self, session: Session, passport: Passport, *, name: str, **settings: Any) -> TaskView:
        return tasks.update_task(session, passport, name=name, **settings)

    @command("tasks:admin")
    def enable_task(self, session: Session, passport: Passport, *, name: str) -> TaskView:
        return tasks.enable_task(session, passport, name=name)

    @command("tasks:admin")
    def disable_task(self, session: Session, passport: Passport, *, name: str) -> TaskView:
        return tasks.disable_task(session, passport, name=name)

    @command("tasks:operate")
    def run_task(
        self, session: Session, passport: Passport, *, name: str, params: dict[str, Any] | None = None
    ) -> TaskRunView:
        return runs.run_task(session, passport, name=name, params=params)

    @command("tasks:operate")
    def cancel_task_run(self, session: Session, passport: Passport, *, run_id: str) -> TaskRunView:
        return runs.cancel_task_run(session, passport, run_id=run_id)

    @query("tasks:read")
    def list_task_runs(self, session: Session, passport: Passport, *, name: str, **page: Any) -> TaskRunPage:
        return queries.list_task_runs(session, passport, name=name, **page)

    @query("tasks:read")
    def get_task_run(self, session: Session, passport: Passport, *, run_id: str) -> TaskRunView:
        return queries.get_task_run(session, passport, run_id=run_id)

    @query("tasks:read")
    def list_task_run_logs(self, session: Session, passport: Passport, *, run_id: str, **page: Any) -> TaskRunLogPage:
        return queries.list_task_run_logs(session, passport, run_id=run_id, **page)

    @every(seconds=TICK_SECONDS)
    def open_due_slots(self) -> None:
        """Look for slots that are due."""
        look_once(self.database.transaction, scheduler.open_due_slots)

    @every(seconds=TICK_SECONDS)
    def mark_lost_runs(self) -> None:
        """Look for runs whose instance died."""
        look_once(self.database.transaction, scheduler.mark_lost_runs)

    # A tick that comes while its last one still works is skipped, so each of these is one run at a time; a shutdown
    # waits for them as for any call.
    @every(seconds=TICK_SECONDS)
    def work_first_lane(self) -> None:
        """Carry out what is due."""
        self._work()

    @every(seconds=TICK_SECONDS)
    def work_second_lane(self) -> None:
        """Carry out what is due."""
        self._work()

    @every(seconds=TICK_SECONDS)
    def work_third_lane(self) -> None:
        """Carry out what is due."""
        self._work()

    @every(seconds=TICK_SECONDS)
    def work_fourth_lane(self) -> None:
        """Carry out what is due."""
        self._work()

    def _work(self) -> None:
        """Carry out runs for about a tick; a long one takes as long as it takes."""
        worker = Worker(
            self.database.transaction,
            owner=process_config().instance,
            executors=BUILT_IN,
            services={"ledger": self.ledger},
        )
        until = time.monotonic() + TICK_SECONDS
        try:
            while worker.run_next() and time.monotonic() < until:
                pass
        except Unavailable:
            return  # the database is away; the next tick looks again
