"""Index what failed by its action: to find none of an action, all failures or all of the action were read through."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "create index ix_device_logs_failed on device_logs (action, result, time, seq) where result <> 'success'"
    )
