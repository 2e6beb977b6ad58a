"""Add the tasks that reconcile: yesterday each morning, and last month once more when it is over."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TASKS = (
    ("reconcile_daily", "Reconciles yesterday over all active channels, and checks that day.", "30 2 * * *", 1800),
    ("reconcile_monthly", "Reconciles each day of last month once more, and sums it up.", "0 4 2 * *", 14400),
)


def upgrade() -> None:
    adding = sa.text(
        "insert into tasks (name, description, enabled, schedule, timezone, timeout_s, retries, concurrency)"
        " values (:name, :description, true, :schedule, 'UTC', :timeout_s, 2, 1)"
    )
    for name, description, schedule, timeout_s in _TASKS:
        values = {"name": name, "description": description, "schedule": schedule, "timeout_s": timeout_s}
        op.get_bind().execute(adding, values)
