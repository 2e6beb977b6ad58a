"""Create devices, their bindings to cards, their heartbeats, and their log with a partition for each month."""

import os

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# A binding is an interval; its rows change only under the lock of its device, and begin only under that of its card.
_DEVICES = """
create table devices (
    id text not null,
    merchant_id text not null,
    name text not null,
    platform text not null,
    fingerprint text not null,
    status text not null,
    status_reason text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint pk_devices primary key (id),
    constraint uq_devices_fingerprint unique (merchant_id, fingerprint),
    constraint ck_devices_status check (status in ('bound', 'blocked', 'unbound'))
);
create index ix_devices_merchant_id on devices (merchant_id, id desc);

create table card_devices (
    id bigint generated always as identity,
    card_id text not null,
    device_id text not null,
    bound_at timestamptz not null,
    unbound_at timestamptz,
    bound_by text not null,
    unbound_by text,
    unbound_because text,
    constraint pk_card_devices primary key (id),
    constraint fk_card_devices_card_id foreign key (card_id) references cards (id),
    constraint fk_card_devices_device_id foreign key (device_id) references devices (id),
    constraint ck_card_devices_order check (unbound_at >= bound_at),
    constraint ck_card_devices_end check ((unbound_at is null) = (unbound_because is null)),
    constraint ck_card_devices_because check (unbound_because in ('unbound', 'card_closed', 'card_assigned'))
);
create unique index uq_card_devices_open on card_devices (card_id, device_id) where unbound_at is null;
create index ix_card_devices_card_id on card_devices (card_id, id desc);
create index ix_card_devices_device_id on card_devices (device_id, id desc);
"""

# Heartbeats are the most frequent write by far: a narrow row of their own, with no index on what changes and room in
# each page, so that an update touches one page and no index, and waits for nobody who works on the device itself.
_HEARTBEATS = """
create table device_presence (
    device_id text not null,
    merchant_id text not null,
    last_seen_at timestamptz,
    watched_since timestamptz,
    is_offline boolean not null default false,
    offline_at timestamptz,
    constraint pk_device_presence primary key (device_id),
    constraint fk_device_presence_device_id foreign key (device_id) references devices (id),
    constraint ck_device_presence_offline check (not is_offline or watched_since is not null)
) with (fillfactor = 50);
comment on column device_presence.watched_since is 'since when going offline is told of; null: it is not';

create table device_watch (
    is_only_row boolean not null default true,
    looked_at timestamptz not null,
    resumed_at timestamptz not null,
    constraint pk_device_watch primary key (is_only_row),
    constraint ck_device_watch_one_row check (is_only_row)
);
comment on table device_watch is 'when the devices were last looked through, and since when without a gap';
insert into device_watch (looked_at, resumed_at) values ('epoch', 'epoch');
"""

# `device_log_keys` stands apart from the partitions, since an event comes once in all of them: a device may send it
# again with another time.
_LOGS = """
create extension if not exists pg_trgm;

create sequence device_logs_seq;
create table device_logs (
    seq bigint not null default nextval('device_logs_seq'),
    time timestamptz not null,
    device_id text not null,
    merchant_id text not null,
    card_id text,
    source text not null,
    event_id text not null,
    action text not null,
    result text not null,
    ip text,
    detail text,
    actor_name text,
    received_at timestamptz not null default clock_timestamp(),
    search_text text not null generated always as (left(
        action || ' ' || result || ' ' || coalesce(ip, '') || ' ' || coalesce(detail, ''), 400)) stored,
    constraint pk_device_logs primary key (time, seq),
    constraint ck_device_logs_source check (source in ('device', 'system'))
) partition by range (time);
comment on table device_logs is 'what devices did, as they tell it, and what was done to them; only ever added to';
create index ix_device_logs_merchant_id on device_logs (merchant_id, time, seq);
create index ix_device_logs_device_id on device_logs (device_id, time, seq);
create index ix_device_logs_card_id on device_logs (card_id, time, seq) where card_id is not null;
create index ix_device_logs_action on device_logs (action, time, seq);
create index ix_device_logs_result on device_logs (result, time, seq) where result <> 'success';
create index ix_device_logs_search on device_logs using gin (search_text gin_trgm_ops);

create table device_log_keys (
    device_id text not null,
    event_id text not null,
    time timestamptz not null,
    constraint pk_device_log_keys primary key (device_id, event_id)
);
comment on table device_log_keys is 'the events of devices that are in the log, each once in all partitions';
"""

# As in audit: the application adds rows and nothing else, so the owner makes partitions on its behalf, beside the
# table and then attached. A thousand values in the histogram, or a rare word passes for one in a hundred.
_PARTITIONS = """
create function make_device_log_partition(day date) returns void
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    first_day constant date := date_trunc('month', day)::date;
    name constant text := 'device_logs_' || to_char(first_day, 'YYYY_MM');
begin
    if to_regclass('public.' || quote_ident(name)) is not null then
        return;
    end if;
    perform pg_advisory_xact_lock(hashtext('make_device_log_partition'));
    if to_regclass('public.' || quote_ident(name)) is not null then
        return;
    end if;
    execute format('create table public.%I (like public.device_logs including all)', name);
    execute format('alter table public.%I alter column search_text set statistics 1000', name);
    {revoke}
    execute format(
        'alter table public.device_logs attach partition public.%I for values from (%L) to (%L)',
        name, first_day || ' 00:00:00+00', (first_day + interval '1 month')::date || ' 00:00:00+00');
end
$$;
select make_device_log_partition((date_trunc('month', now()) + make_interval(months => ahead))::date)
from generate_series(-1, 2) as ahead;
"""


def upgrade() -> None:
    """Create the tables. The application may add rows to the log, and may not change or delete them."""
    for statements in (_DEVICES, _HEARTBEATS, _LOGS):
        op.execute(statements)
    app_role = os.environ.get("APP_ROLE")
    revoke = (
        f"execute format('revoke update, delete, truncate on public.%I from %I', name, '{app_role}');"
        if app_role
        else ""
    )
    op.execute(_PARTITIONS.format(revoke=revoke))
    op.execute("revoke execute on function make_device_log_partition(date) from public")
    if app_role:
        op.execute(f'revoke update, delete on device_logs from "{app_role}"')
        op.execute(f'revoke insert, delete on device_watch from "{app_role}"')
        op.execute(f'grant execute on function make_device_log_partition(date) to "{app_role}"')
