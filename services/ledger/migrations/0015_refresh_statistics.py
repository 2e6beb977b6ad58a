"""Let the application have PostgreSQL look at what has come in, before a million new rows are matched."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# Only the owner may analyze. A table is looked at when it has grown by a fifth since the last look.
_FUNCTION = """
create function refresh_statistics() returns void
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    name text;
begin
    if not pg_try_advisory_xact_lock(hashtext('refresh_statistics')) then
        return;
    end if;
    foreach name in array array['upstream_records', 'orders'] loop
        if (select pg_relation_size(oid) > (relpages * 1.2 + 100) * current_setting('block_size')::bigint
              from pg_class where oid = name::regclass) then
            execute format('analyze %I', name);
        end if;
    end loop;
end $$;
"""


def upgrade() -> None:
    op.execute(_FUNCTION)
