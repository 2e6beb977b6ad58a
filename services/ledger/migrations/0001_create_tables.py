"""Create accounts, entries, and the sums that posting keeps."""

from alembic import op

from shared.kernel_tables import create_kernel_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# One row an account, half of each page left free so that an update of a balance stays on its page.
_ACCOUNTS = """
create sequence account_ids;

create table accounts (
    id bigint not null default nextval('account_ids'),
    merchant_id text not null,
    holder_type text not null,
    holder_id text not null,
    currency text not null,
    wallet text not null default 'balance',
    balance bigint not null default 0,
    held bigint not null default 0,
    version bigint not null default 0,
    digest bytea not null default '',
    updated_at timestamptz not null default clock_timestamp(),
    constraint pk_accounts primary key (id),
    constraint uq_accounts_holder unique (merchant_id, holder_type, holder_id, currency, wallet),
    constraint ck_accounts_holder_type check (holder_type in ('user', 'merchant', 'card')),
    constraint ck_accounts_floor check (balance >= 0),
    constraint ck_accounts_held check (held >= 0 and held <= balance),
    constraint ck_accounts_version check (version >= 0)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01);

create index ix_accounts_holder_id on accounts (holder_id);
create index ix_accounts_merchant_id on accounts (merchant_id, id);
"""

# The holder's leg is `amount`, the counter-account's its opposite: each row balances by itself.
_ENTRIES = """
create table entries (
    account_id bigint not null,
    version bigint not null,
    amount bigint not null,
    balance_before bigint not null,
    balance_after bigint not null,
    created_at timestamptz not null,
    type smallint not null,
    merchant_id text not null,
    holder_type text not null,
    holder_id text not null,
    currency text not null,
    counter_account text,
    order_no text,
    channel text,
    note text,
    reason text,
    actor_id text not null,
    actor_name text not null,
    actor_type text not null,
    request_id text not null,
    digest bytea not null,
    constraint ck_entries_version check (version >= 1),
    constraint ck_entries_chain check (balance_after = balance_before + amount),
    constraint ck_entries_floor check (balance_before >= 0 and balance_after >= 0),
    constraint ck_entries_legs check (amount = 0 or counter_account is not null)
) partition by range (created_at);

create index ix_entries_created_at on entries (created_at);
create index ix_entries_account_id on entries (account_id, created_at);
create index ix_entries_merchant_id on entries (merchant_id, created_at);
create index ix_entries_type on entries (type, created_at);
create index ix_entries_order_no on entries (order_no) where order_no is not null;
"""

# System accounts are not rows under a lock: a posting only adds rows here, and a timer folds them into the totals.
_SUMS = """
create table posting_deltas (
    id bigint generated always as identity,
    hour timestamptz not null,
    merchant_id text not null,
    currency text not null,
    type smallint not null,
    counter_account text,
    entries bigint not null,
    increase numeric not null,
    decrease numeric not null,
    constraint pk_posting_deltas primary key (id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

create table system_account_totals (
    merchant_id text not null,
    counter_account text not null,
    currency text not null,
    balance numeric not null,
    constraint pk_system_account_totals primary key (merchant_id, counter_account, currency)
);

create table hourly_totals (
    hour timestamptz not null,
    merchant_id text not null,
    currency text not null,
    type smallint not null,
    entries bigint not null,
    increase numeric not null,
    decrease numeric not null,
    constraint pk_hourly_totals primary key (hour, merchant_id, currency, type)
);

create table verified_accounts (
    account_id bigint not null,
    version bigint not null,
    balance bigint not null,
    digest bytea not null,
    verified_at timestamptz not null default clock_timestamp(),
    constraint pk_verified_accounts primary key (account_id)
);
"""

# Whoever is not the owner may read and add entries through the parent, and nothing else: a correction is an entry.
_PARTITIONS = """
create function revoke_from_others(name regclass, privileges text) returns void language plpgsql as $$
declare
    other record;
begin
    for other in
        select distinct grantee::regrole::text as role
          from pg_class, aclexplode(relacl)
         where oid = name and grantee <> relowner and grantee <> 0
    loop
        execute format('revoke %s on %s from %s', privileges, name, other.role);
    end loop;
end $$;

-- What the default partition holds of the month, because nobody made this partition in time, moves here.
create function create_entry_partition(month date) returns void language plpgsql as $$
declare
    name text := 'entries_' || to_char(month, 'YYYY_MM');
    first timestamptz := month::timestamp at time zone 'UTC';
    last timestamptz := (month + interval '1 month') at time zone 'UTC';
begin
    if to_regclass(name) is not null then
        return;
    end if;
    execute format('create table %I (like entries including constraints)', name);
    execute format(
        'with moved as (delete from entries_default where created_at >= %L and created_at < %L returning *)'
        ' insert into %I select * from moved',
        first, last, name);
    execute format('alter table %I add constraint %I primary key (account_id, version)', name, 'pk_' || name);
    execute format('alter table entries attach partition %I for values from (%L) to (%L)', name, first, last);
    perform revoke_from_others(name::regclass, 'all');
end $$;

-- Run by the application, whose role may not create tables.
create function create_entry_partitions(months_ahead int) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    perform pg_advisory_xact_lock(hashtext('create_entry_partitions'));
    for ahead in 0 .. least(months_ahead, 24) loop
        perform create_entry_partition(
            (date_trunc('month', now() at time zone 'UTC') + make_interval(months => ahead))::date);
    end loop;
end $$;

create table entries_default partition of entries (constraint pk_entries_default primary key (account_id, version))
    default;
select create_entry_partitions(2);
select revoke_from_others('entries_default', 'all');
select revoke_from_others('entries', 'update, delete, truncate, references, trigger');
"""

# A batch's answer and its events are megabytes of JSON: lz4 takes a fifth of pglz's time over them.
_COMPRESSION = """
do $$
begin
    alter table idempotency_keys alter column answer set compression lz4;
    alter table outbox alter column envelope set compression lz4;
exception when feature_not_supported then
    raise notice 'this PostgreSQL has no lz4';
end $$
"""


def upgrade() -> None:
    create_kernel_tables(op)
    for statements in (_ACCOUNTS, _ENTRIES, _SUMS, _PARTITIONS, _COMPRESSION):
        op.execute(statements)
