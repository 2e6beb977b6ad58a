"""Let a record that a correction set aside count again when the platform says something else of it."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# A correction judged what the record said then. The record that stands in its place says what we said of that, and
# goes with it. Every way in (statements, callbacks, queries) writes over what is known, so this is their one place.
_COUNTING_AGAIN = """
alter table upstream_records add column counted_again_at timestamptz;

create function count_record_again() returns trigger
language plpgsql set search_path = public, pg_temp as $$
begin
    update upstream_records
       set voided_by = old.voided_by, counted_again_at = clock_timestamp()
     where upstream_ref = 'correction:' || old.voided_by and channel = old.channel and source = 'correction'
       and voided_by is null;
    new.voided_by := null;
    new.counted_again_at := clock_timestamp();
    return new;
end $$;

create trigger tr_upstream_records_count_again before update on upstream_records
    for each row when (old.voided_by is not null and new.voided_by is not distinct from old.voided_by
        and old.source <> 'correction'
        and (old.status, old.amount, old.currency) is distinct from (new.status, new.amount, new.currency))
    execute function count_record_again();
"""


def upgrade() -> None:
    op.execute(_COUNTING_AGAIN)
