"""Look for orders that were paid twice by a function, at whose query several cores may work."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

# One process alone works at a statement that writes. A stable function within it sees what it sees, and may have more.
_REPEATED = """
create function repeated_of_day(channel_code text, starts_at timestamptz, ends_at timestamptz)
returns table (record_id bigint)
language plpgsql stable as $$
begin
    return query
    select r.id
      from upstream_records r
     where r.channel = channel_code and r.voided_by is null and r.occurred_at >= starts_at and r.occurred_at < ends_at
       and exists (
           select from upstream_records x
            where x.channel || '' = channel_code and x.order_no = r.order_no and x.voided_by is null and x.id <> r.id);
end $$;
"""
# To match, PostgreSQL has to know how many rows there are and of which days: a tenth of the usual sample says that.
# It looks again thoroughly by itself.
_GLANCE = "alter function refresh_statistics() set default_statistics_target = 10"


def upgrade() -> None:
    op.execute(_REPEATED)
    op.execute(_GLANCE)
