"""Create archives: entries that left the log, compressed, with what proves them and what goes on from them."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# An archive is a month that left. `digest` is of the archive before it and of the digests of its parts, in order.
_ARCHIVES = """
create table archives (
    id text not null,
    number bigint not null,
    month date not null,
    entries bigint not null,
    accounts bigint not null,
    parts bigint not null,
    size_bytes bigint not null,
    digest bytea not null,
    previous_digest bytea,
    reason text not null,
    actor_id text not null,
    actor_name text not null,
    archived_at timestamptz not null default clock_timestamp(),
    constraint pk_archives primary key (id),
    constraint uq_archives_number unique (number)
);

-- Entries as gzipped CSV, ordered by account and version. `sha256` is of the CSV.
create table archive_parts (
    archive_id text not null,
    part bigint not null,
    first_account_id bigint not null,
    last_account_id bigint not null,
    entries bigint not null,
    sha256 bytea not null,
    content bytea not null,
    constraint pk_archive_parts primary key (archive_id, part),
    constraint fk_archive_parts_archive_id foreign key (archive_id) references archives (id)
        deferrable initially deferred
);

alter table archive_parts alter column content set storage external;

-- What an archive's entries sum to: the proof adds it to what the entries that are left sum to.
create table archive_totals (
    archive_id text not null,
    hour timestamptz not null,
    merchant_id text not null,
    currency text not null,
    type smallint not null,
    counter_account text,
    entries bigint not null,
    increase numeric not null,
    decrease numeric not null,
    constraint uq_archive_totals unique nulls not distinct
        (archive_id, hour, merchant_id, currency, type, counter_account),
    constraint fk_archive_totals_archive_id foreign key (archive_id) references archives (id)
        deferrable initially deferred
);

-- Where an account's entries go on: what the last of its entries that left says.
create table archived_openings (
    account_id bigint not null,
    version bigint not null,
    balance bigint not null,
    digest bytea not null,
    constraint pk_archived_openings primary key (account_id)
);

-- What refunds that left gave back, since an order's refunds are counted over all of them.
create table archived_refunds (
    merchant_id text not null,
    order_no text not null,
    currency text not null,
    amount bigint not null,
    constraint pk_archived_refunds primary key (merchant_id, order_no, currency)
);
"""

# Nobody but the owner deletes entries; and this deletes only what an archive has, each of it.
_DROPPING = """
create function drop_archived_partition(archive text) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    kept record;
    name text;
    found record;
    totals record;
    parts record;
begin
    select month, entries into strict kept from archives where id = archive;
    name := 'entries_' || to_char(kept.month, 'YYYY_MM');
    execute format('alter table entries detach partition %I', name);
    execute format('select count(*) as entries, coalesce(sum(amount), 0) as amount from %I', name) into found;
    select sum(entries) as entries, sum(increase + decrease) as amount into totals
      from archive_totals where archive_id = archive;
    select sum(entries) as entries into parts from archive_parts where archive_id = archive;
    if found.entries is distinct from kept.entries or found.entries is distinct from parts.entries
        or found.entries is distinct from totals.entries or found.amount is distinct from totals.amount
    then
        raise exception 'archive % does not hold what % holds', archive, name;
    end if;
    execute format('drop table %I', name);
end $$;

-- The month's partition, which also takes what the default one holds of it.
create function prepare_archiving(month date) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    perform pg_advisory_xact_lock(hashtext('create_entry_partitions'));
    perform create_entry_partition(month);
end $$;
"""

_PRIVILEGES = """
select revoke_from_others('archives', 'update, delete, truncate, references, trigger');
select revoke_from_others('archive_parts', 'update, delete, truncate, references, trigger');
select revoke_from_others('archive_totals', 'update, delete, truncate, references, trigger');
select revoke_from_others('archived_openings', 'delete, truncate, references, trigger');
select revoke_from_others('archived_refunds', 'delete, truncate, references, trigger');
"""


def upgrade() -> None:
    for statement in (_ARCHIVES, _DROPPING, _PRIVILEGES):
        op.execute(statement)
