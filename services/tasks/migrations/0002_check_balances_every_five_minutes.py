"""Check the balances every five minutes, where nobody has chosen another schedule."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("update tasks set schedule = '*/5 * * * *' where name = 'balance_check' and schedule = '10 3 * * *'")
