"""Add the task that asks payment platforms for orders that no callback came for."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    adding = sa.text(
        "insert into tasks (name, description, enabled, schedule, timezone, timeout_s, retries, concurrency)"
        " values ('order_status_sync', :description, true, '*/10 * * * *', 'UTC', 540, 0, 1)"
    )
    description = "Asks payment platforms for pending orders, so that they settle though no callback came."
    op.get_bind().execute(adding, {"description": description})
