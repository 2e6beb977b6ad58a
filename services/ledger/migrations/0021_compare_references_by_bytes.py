"""Compare the platforms' numbers of payments by their bytes: they are ASCII, and of no language."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A language's comparison takes a tenth of an import's time.
    op.execute('alter table upstream_records alter column upstream_ref type text collate "C"')
