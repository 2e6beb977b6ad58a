"""Two instances of the service as processes on a real bus: slots run once, and what a killed one held is done again."""

import base64
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from operations import migrate
from services.audit.service import AuditService
from services.tasks.service import TasksService
from shared.contracts.tasks import AlreadyRunning
from shared.errors import Unavailable
from shared.rpc.client import RpcClient
from shared.topology import declare_topology
from tests.services.tasks.slow_ledger import SlowLedger
from tests.shared.conftest import eventually

ROOT = Path(__file__).resolve().parents[3]
LEASE_SECONDS = 3


class Tasks:
    """The instances, and a client of them."""

    def __init__(self, database_url: str, amqp_url: str, folder: Path) -> None:
        self.folder = folder
        self.keys = {name: secrets.token_bytes(32) for name in ("tasks", "ledger")}
        encoded = {name: base64.b64encode(key).decode() for name, key in self.keys.items()}
        self.environment = {
            **os.environ,
            "AMQP_URL": amqp_url,
            "DATABASE_URL": database_url,
            "PASSPORT_KEY_LEDGER": encoded["ledger"],
            "LEDGER_FOLDER": str(folder),
            "TASK_LEASE_SECONDS": str(LEASE_SECONDS),
        }
        self.encoded = encoded
        self.engine = sa.create_engine(database_url)
        self.client = RpcClient(amqp_url, self.keys, name="tests").start()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, instance: str, service: str, target: str) -> None:
        told = {"SERVICE": service, "INSTANCE": instance, "PASSPORT_KEY": self.encoded[service]}
        with (self.folder / f"{instance}.log").open("ab") as log:
            self.processes[instance] = subprocess.Popen(
                [sys.executable, "-m", "shared.runner", target],
                cwd=ROOT,
                env=self.environment | told,
                stdout=log,
                stderr=log,
            )

    def start_instance(self, instance: str) -> None:
        self.start(instance, "tasks", "services.tasks.service:TasksService")

    def let_ledger_take(self, seconds: float) -> None:
        (self.folder / "seconds").write_text(str(seconds))

    def asked(self) -> list[str]:
        path = self.folder / "asked"
        return path.read_text().split() if path.exists() else []

    def rows(self, sql: str):
        with self.engine.connect() as connection:
            return connection.execute(sa.text(sql)).all()

    def owner_at_work(self) -> str:
        """Wait until the ledger has been asked, and return the instance that waits for its answer."""
        eventually(self.asked)
        [[owner]] = self.rows("select lease_owner from task_runs where status = 'running'")
        return str(owner)

    def stop(self) -> None:
        self.client.stop()
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes.values():
            process.wait(40)
        self.engine.dispose()


@pytest.fixture
def tasks(server_url, amqp_url, tmp_path, alice) -> Iterator[Tasks]:
    """Two instances of tasks and a ledger that takes its time, all of them ready."""
    name = f"test_tasks_{secrets.token_hex(4)}"
    admin = sa.create_engine(
        sa.make_url(server_url).set(drivername="postgresql+psycopg"),
        isolation_level="AUTOCOMMIT",
        poolclass=sa.NullPool,
    )
    with admin.connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
    url = admin.url.set(database=name).render_as_string(hide_password=False)
    migrate.upgrade("tasks", url)
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        connection.execute(sa.text("delete from tasks where name <> 'balance_check'"))
        connection.execute(sa.text("update tasks set schedule = '0 0 1 1 *', next_run_at = null"))  # once a year
    declare_topology(amqp_url, [TasksService, SlowLedger, AuditService])  # audit's queue takes the events
    tasks = Tasks(url, amqp_url, tmp_path)
    try:
        tasks.let_ledger_take(0)
        tasks.start("ledger-1", "ledger", "tests.services.tasks.slow_ledger:SlowLedger")
        for instance in ("tasks-1", "tasks-2"):
            tasks.start_instance(instance)
        for service, instances in (("ledger", {"ledger-1"}), ("tasks", {"tasks-1", "tasks-2"})):
            seen: set[str] = set()

            def is_complete(service=service, instances=instances, seen=seen):
                seen.add(tasks.client.call(service, "ping", passport=alice, timeout=5).result["instance"])
                return seen == instances

            eventually(lambda check=is_complete: _or_false(check), within_seconds=30)
        yield tasks
    finally:
        tasks.stop()
        with admin.connect() as connection:
            connection.execute(sa.text(f"drop database {name} with (force)"))


def _or_false(check):
    try:
        return check()
    except Unavailable:
        return False


def test_a_run_by_hand_is_carried_out_over_the_bus(tasks, alice):
    run = tasks.client.call("tasks", "run_task", passport=alice, name="balance_check").result
    assert run["status"] == "queued"

    def finished():
        found = tasks.client.call("tasks", "get_task_run", passport=alice, run_id=run["id"]).result
        return found if found["finished_at"] else None

    found = eventually(finished)
    assert (found["status"], found["result"]) == (
        "succeeded",
        {"mode": "full", "accounts_checked": 3, "entries_checked": 9, "broken": []},
    )
    assert len(tasks.asked()) == 1
    lines = tasks.client.call("tasks", "list_task_run_logs", passport=alice, run_id=run["id"]).result
    assert len(lines["items"]) == 2
    assert lines["run_status"] == "succeeded"


def test_a_slot_runs_once_though_two_instances_look(tasks):
    for number in range(3):
        before = len(tasks.asked())
        with tasks.engine.begin() as connection:
            connection.execute(
                sa.text(
                    "update tasks set schedule = '* * * * *', next_run_at = date_trunc('minute', now())"
                    " where name = 'balance_check'"
                )
            )
            connection.execute(sa.text("delete from task_run_logs"))
            connection.execute(sa.text("delete from task_runs"))
        eventually(lambda before=before: len(tasks.asked()) > before, within_seconds=10)
        eventually(lambda: tasks.rows("select 1 from task_runs where status = 'succeeded'"))
        slots = tasks.rows("select scheduled_for, attempt from task_runs")
        assert len(slots) == len(set(slots)) == len(tasks.asked()) - before, number
        assert len(slots) <= 2  # a minute may turn meanwhile


def test_what_a_killed_instance_held_is_lost_and_done_again(tasks, alice):
    tasks.let_ledger_take(6)
    run = tasks.client.call("tasks", "run_task", passport=alice, name="balance_check").result
    owner = tasks.owner_at_work()
    tasks.processes[owner].kill()
    tasks.let_ledger_take(0)
    eventually(lambda: tasks.rows("select 1 from task_runs where status = 'lost'"), within_seconds=15)
    eventually(lambda: tasks.rows("select 1 from task_runs where status = 'succeeded'"), within_seconds=20)
    attempts = tasks.rows("select status, attempt, origin_id, trigger, lease_owner from task_runs order by attempt")
    [other] = {"tasks-1", "tasks-2"} - {owner}
    assert [tuple(row) for row in attempts] == [
        ("lost", 1, run["id"], "manual", owner),
        ("succeeded", 2, run["id"], "retry", other),
    ]
    assert len(tasks.asked()) == 2


def test_a_frozen_instance_changes_nothing_when_it_wakes(tasks, alice):
    tasks.let_ledger_take(4)
    tasks.client.call("tasks", "run_task", passport=alice, name="balance_check")
    owner = tasks.owner_at_work()
    tasks.processes[owner].send_signal(signal.SIGSTOP)
    tasks.let_ledger_take(0)
    eventually(lambda: tasks.rows("select 1 from task_runs where status = 'lost'"), within_seconds=15)
    eventually(lambda: tasks.rows("select 1 from task_runs where status = 'succeeded'"), within_seconds=20)
    before = tasks.rows("select * from task_runs order by id")
    tasks.processes[owner].send_signal(signal.SIGCONT)
    eventually(lambda: "run was taken away" in (tasks.folder / f"{owner}.log").read_text(), within_seconds=15)
    assert tasks.rows("select * from task_runs order by id") == before


def test_a_lease_is_held_for_as_long_as_the_work_goes_on_and_through_a_shutdown(tasks, alice):
    tasks.let_ledger_take(LEASE_SECONDS * 2)
    run = tasks.client.call("tasks", "run_task", passport=alice, name="balance_check").result
    owner = tasks.owner_at_work()
    with pytest.raises(AlreadyRunning):
        tasks.client.call("tasks", "run_task", passport=alice, name="balance_check")
    tasks.processes[owner].send_signal(signal.SIGTERM)
    assert tasks.processes[owner].wait(30) == 0
    rows = tasks.rows("select id, status, attempt from task_runs")
    assert [tuple(row) for row in rows] == [(run["id"], "succeeded", 1)]
