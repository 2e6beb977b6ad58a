"""Find orders by their state: the pending ones of a million are what people look for."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("create index ix_orders_status on orders (status, created_at, id)")
