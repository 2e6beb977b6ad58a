"""Create the tables of tasks, and the tasks that are built in."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from shared.kernel_tables import create_kernel_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_INSTANT = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    create_kernel_tables(op)
    op.execute("create sequence task_run_fencing_tokens")
    tasks = _create_tasks()
    _create_runs()
    _create_logs()
    op.bulk_insert(
        tasks,
        [
            {
                "name": "balance_check",
                "description": "Proves every account of the ledger: each chain of entries, and the trial balance.",
                "enabled": True,
                "schedule": "10 3 * * *",
                "timezone": "UTC",
                "timeout_s": 600,
                "retries": 2,
                "concurrency": 1,
            }
        ],
    )


def _create_tasks() -> sa.Table:
    table = op.create_table(
        "tasks",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("schedule", sa.Text, nullable=False),
        sa.Column("timezone", sa.Text, nullable=False),
        sa.Column("timeout_s", sa.Integer, nullable=False),
        sa.Column("retries", sa.Integer, nullable=False),
        sa.Column("concurrency", sa.Integer, nullable=False),
        sa.Column("next_run_at", _INSTANT),
        sa.Column("updated_at", _INSTANT, nullable=False, server_default=sa.func.now()),
        sa.CheckConstraint("timeout_s between 1 and 86400", name="ck_tasks_timeout_s"),
        sa.CheckConstraint("retries between 0 and 10", name="ck_tasks_retries"),
        sa.CheckConstraint("concurrency between 1 and 10", name="ck_tasks_concurrency"),
    )
    op.create_index("ix_tasks_next_run_at", "tasks", ["next_run_at"], postgresql_where=sa.text("enabled"))
    return table


def _create_runs() -> None:
    op.create_table(
        "task_runs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("task_name", sa.Text, sa.ForeignKey("tasks.name", name="fk_task_runs_task_name"), nullable=False),
        sa.Column("origin_id", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("trigger", sa.Text, nullable=False),
        sa.Column("requested_by", sa.Text),
        sa.Column("scheduled_for", _INSTANT),
        sa.Column("due_at", _INSTANT, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("is_cancel_requested", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("fence", sa.BigInteger),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_until", _INSTANT),
        sa.Column("started_at", _INSTANT),
        sa.Column("finished_at", _INSTANT),
        sa.Column("progress", JSONB),
        sa.Column("result", JSONB),
        sa.Column("error", sa.Text),
        sa.CheckConstraint(
            "status in ('queued', 'running', 'succeeded', 'failed', 'timed_out', 'cancelled', 'lost')",
            name="ck_task_runs_status",
        ),
        sa.CheckConstraint("(status = 'running') = (lease_until is not null)", name="ck_task_runs_lease"),
        sa.CheckConstraint(
            "(status in ('queued', 'running')) = (finished_at is null)", name="ck_task_runs_finished_at"
        ),
    )
    first_attempt, queued, running = (sa.text(t) for t in ("attempt = 1", "status = 'queued'", "status = 'running'"))
    op.create_index(
        "uq_task_runs_slot", "task_runs", ["task_name", "scheduled_for"], unique=True, postgresql_where=first_attempt
    )
    op.create_index("uq_task_runs_attempt", "task_runs", ["origin_id", "attempt"], unique=True)
    op.create_index("ix_task_runs_task_name", "task_runs", ["task_name", sa.text("id desc")])
    op.create_index("ix_task_runs_queued", "task_runs", ["task_name", "due_at"], postgresql_where=queued)
    op.create_index("ix_task_runs_running", "task_runs", ["task_name", "lease_until"], postgresql_where=running)


def _create_logs() -> None:
    op.create_table(
        "task_run_logs",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("run_id", sa.Text, sa.ForeignKey("task_runs.id", name="fk_task_run_logs_run_id"), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False, server_default=sa.func.clock_timestamp()),
        sa.Column("level", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
    )
    op.create_index("ix_task_run_logs_run_id", "task_run_logs", ["run_id", "id"])
