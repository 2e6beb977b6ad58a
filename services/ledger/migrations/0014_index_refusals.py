"""Find a kept refusal by its request's id, so that it can be explained."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "create index ix_idempotency_keys_refused on idempotency_keys ((error::jsonb -> 'extra' ->> 'request_id'))"
        " where error is not null"
    )
