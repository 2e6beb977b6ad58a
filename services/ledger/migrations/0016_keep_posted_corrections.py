"""Keep with an entry that a correction posted its type and its time: its month may leave the log meanwhile."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_POSTED = """
alter table correction_entries add column type smallint, add column posted_at timestamptz;
update correction_entries c set type = e.type, posted_at = e.created_at
  from entries e where e.account_id = c.account_id and e.version = c.version;
alter table correction_entries alter column type set not null, alter column posted_at set not null;
create index ix_correction_entries_posted_at on correction_entries (posted_at);
"""


def upgrade() -> None:
    op.execute(_POSTED)
