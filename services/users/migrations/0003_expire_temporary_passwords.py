"""Let temporary passwords expire; those that were given before this expire three days from now."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the time at which a password ends; null for one that its user chose."""
    op.execute("alter table users add column password_expires_at timestamptz")
    op.execute("update users set password_expires_at = now() + interval '72 hours' where must_change_password")
