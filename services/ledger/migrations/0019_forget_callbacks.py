"""Let callbacks and platforms' raw answers be forgotten once nothing needs them any more."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_INDEXES = """
create index ix_callbacks_received_at on callbacks (received_at);
create index ix_upstream_answers_asked_at on upstream_answers (asked_at);
"""

# Nobody but the owner deletes these; and this deletes none that is young enough to be delivered again, nor what a
# pending order or an open mismatch needs: their callbacks, and of a pending order what its platform answered last.
# They go by place, a page at a time, so that what stays is looked at once.
_FORGETTING = """
create function forget_callbacks(kept interval, after timestamptz, rows_max int,
                                 out seen bigint, out forgotten bigint, out last timestamptz)
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    if kept < interval '7 days' then
        raise exception 'callbacks are kept for seven days';
    end if;
    with old as materialized (
        select channel, webhook_id, order_no, received_at from callbacks
         where received_at > after and received_at < now() - kept
         order by received_at limit rows_max
    ), gone as (
        delete from callbacks c using old o
         where c.channel = o.channel and c.webhook_id = o.webhook_id
           and not exists (select from orders
                            where order_no = o.order_no and channel = o.channel and status = 'pending')
           and not exists (select from mismatches
                            where order_no = o.order_no and channel = o.channel
                              and status in ('open', 'pending_approval'))
        returning 1
    )
    select count(*), (select count(*) from gone), max(received_at) into seen, forgotten, last from old;
end $$;

create function forget_upstream_answers(kept interval, after timestamptz, rows_max int,
                                        out seen bigint, out forgotten bigint, out last timestamptz)
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    if kept < interval '7 days' then
        raise exception 'platforms'' answers are kept for seven days';
    end if;
    with old as materialized (
        select id, channel, order_no, asked_at from upstream_answers
         where asked_at > after and asked_at < now() - kept
         order by asked_at limit rows_max
    ), gone as (
        delete from upstream_answers a using old o
         where a.id = o.id
           and not exists (select from orders
                            where order_no = o.order_no and channel = o.channel and status = 'pending'
                              and not exists (select from upstream_answers
                                               where order_no = o.order_no and channel = o.channel and id > o.id))
           and not exists (select from mismatches
                            where order_no = o.order_no and channel = o.channel
                              and status in ('open', 'pending_approval'))
        returning 1
    )
    select count(*), (select count(*) from gone), max(asked_at) into seen, forgotten, last from old;
end $$;
"""


def upgrade() -> None:
    op.execute(_INDEXES)
    op.execute(_FORGETTING)
