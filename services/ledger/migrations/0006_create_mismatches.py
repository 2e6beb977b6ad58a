"""Create reconciliations, the mismatches that they find, the corrections of those, and the days that are closed."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_RECONCILIATIONS = """
create table reconciliations (
    id text not null,
    channel text not null,
    day date not null,
    zone_name text not null,
    records bigint not null,
    orders bigint not null,
    matched bigint not null,
    expected bigint not null,
    found bigint not null,
    healed bigint not null,
    previous_id text,
    actor_id text not null,
    actor_name text not null,
    request_id text not null,
    started_at timestamptz not null,
    finished_at timestamptz not null default clock_timestamp(),
    constraint pk_reconciliations primary key (id),
    constraint fk_reconciliations_channel foreign key (channel) references channels (code),
    constraint fk_reconciliations_previous_id foreign key (previous_id) references reconciliations (id)
);

create index ix_reconciliations_day on reconciliations (channel, day, finished_at);
create index ix_reconciliations_finished_at on reconciliations (finished_at, id);
"""

# A mismatch is known by what does not fit: the same kind, order and record found again is the same mismatch.
# `local` and `upstream` are both sides as they were when it was last found.
_MISMATCHES = """
create table mismatches (
    id text not null,
    channel text not null,
    day date not null,
    kind text not null,
    status text not null default 'open',
    order_no text,
    merchant_id text,
    record_id bigint,
    upstream_ref text,
    local jsonb,
    upstream jsonb,
    differing text[] not null default '{}',
    currency text not null,
    difference bigint not null,
    resolution text,
    version bigint not null default 1,
    found_by text not null,
    seen_by text not null,
    opened_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    constraint pk_mismatches primary key (id),
    constraint uq_mismatches_subject unique nulls not distinct (channel, kind, order_no, upstream_ref),
    constraint fk_mismatches_found_by foreign key (found_by) references reconciliations (id),
    constraint fk_mismatches_seen_by foreign key (seen_by) references reconciliations (id),
    constraint ck_mismatches_kind check (kind in ('missing_local_update', 'amount_mismatch', 'status_mismatch',
        'missing_upstream', 'missing_local', 'duplicate_upstream')),
    constraint ck_mismatches_status check (status in ('open', 'pending_approval', 'reconciled', 'corrected',
        'ignored')),
    constraint ck_mismatches_resolution check (resolution is null or status in ('reconciled', 'corrected', 'ignored')),
    constraint ck_mismatches_subject check (order_no is not null or upstream_ref is not null)
);

create index ix_mismatches_opened_at on mismatches (opened_at, id);
create index ix_mismatches_day on mismatches (channel, day);
create index ix_mismatches_merchant_id on mismatches (merchant_id, opened_at, id);
create index ix_mismatches_order_no on mismatches (order_no);
create index ix_mismatches_open on mismatches (status, opened_at, id) where status in ('open', 'pending_approval');

-- Which run saw which mismatch: two runs are compared by it.
create table mismatch_sightings (
    reconciliation_id text not null,
    mismatch_id text not null,
    constraint pk_mismatch_sightings primary key (reconciliation_id, mismatch_id),
    constraint fk_mismatch_sightings_reconciliation_id foreign key (reconciliation_id) references reconciliations (id),
    constraint fk_mismatch_sightings_mismatch_id foreign key (mismatch_id) references mismatches (id)
);

create table mismatch_history (
    id bigint generated always as identity,
    mismatch_id text not null,
    act text not null,
    status_before text,
    status_after text not null,
    reason text,
    correction_id text,
    actor_id text not null,
    actor_name text not null,
    actor_type text not null,
    request_id text not null,
    created_at timestamptz not null default clock_timestamp(),
    constraint pk_mismatch_history primary key (id),
    constraint fk_mismatch_history_mismatch_id foreign key (mismatch_id) references mismatches (id),
    constraint ck_mismatch_history_act check (act in ('find', 'heal', 'reconcile', 'propose', 'approve', 'reject',
        'apply', 'reverse', 'ignore', 'reopen'))
);

create index ix_mismatch_history_mismatch_id on mismatch_history (mismatch_id, id);
"""

# A proposal is its content, and its digest: who approves names the digest, so that an edit voids the approval.
_CORRECTIONS = """
create table corrections (
    id text not null,
    mismatch_id text not null,
    direction text not null,
    content jsonb not null,
    content_sha256 bytea not null,
    status text not null,
    reason text not null,
    reversal_of text,
    proposed_by text not null,
    proposed_by_name text not null,
    decided_by text,
    decided_by_name text,
    decided_reason text,
    created_at timestamptz not null default clock_timestamp(),
    decided_at timestamptz,
    applied_at timestamptz,
    constraint pk_corrections primary key (id),
    constraint fk_corrections_mismatch_id foreign key (mismatch_id) references mismatches (id),
    constraint fk_corrections_reversal_of foreign key (reversal_of) references corrections (id),
    constraint ck_corrections_direction check (direction in ('upstream', 'local')),
    constraint ck_corrections_status check (status in ('proposed', 'rejected', 'void', 'applied', 'reversed')),
    constraint ck_corrections_applied_at check ((applied_at is not null) = (status in ('applied', 'reversed')))
);

create unique index uq_corrections_proposed on corrections (mismatch_id) where status = 'proposed';
create unique index uq_corrections_reversal_of on corrections (reversal_of) where status in ('proposed', 'applied');
create index ix_corrections_mismatch_id on corrections (mismatch_id, created_at);
create index ix_corrections_created_at on corrections (created_at, id);

-- The entries that a correction posted. `bucket` and `day` say which line of which day's report it counts for.
create table correction_entries (
    correction_id text not null,
    account_id bigint not null,
    version bigint not null,
    order_no text not null,
    merchant_id text not null,
    channel text,
    bucket text not null,
    day date not null,
    amount bigint not null,
    currency text not null,
    constraint pk_correction_entries primary key (account_id, version),
    constraint fk_correction_entries_correction_id foreign key (correction_id) references corrections (id),
    constraint ck_correction_entries_bucket check (bucket in ('recharge', 'withdrawal', 'consumption', 'refund',
        'resets', 'fees'))
);

create index ix_correction_entries_correction_id on correction_entries (correction_id);
create index ix_correction_entries_day on correction_entries (day, channel);
create index ix_correction_entries_order_no on correction_entries (order_no);
"""

# A closed day is sealed: its totals, and a digest of them and of the digest of the day before.
_CLOSED_DAYS = """
create table closed_days (
    day date not null,
    zone_name text not null,
    starts_at timestamptz not null,
    ends_at timestamptz not null,
    totals jsonb not null,
    digest bytea not null,
    previous_digest bytea,
    reason text not null,
    actor_id text not null,
    actor_name text not null,
    request_id text not null,
    closed_at timestamptz not null default clock_timestamp(),
    constraint pk_closed_days primary key (day),
    constraint ck_closed_days_ends_at check (ends_at > starts_at)
);
"""

_PRIVILEGES = """
select revoke_from_others('reconciliations', 'update, delete, truncate, references, trigger');
select revoke_from_others('mismatches', 'delete, truncate, references, trigger');
select revoke_from_others('mismatch_sightings', 'update, delete, truncate, references, trigger');
select revoke_from_others('mismatch_history', 'update, delete, truncate, references, trigger');
select revoke_from_others('corrections', 'delete, truncate, references, trigger');
select revoke_from_others('correction_entries', 'update, delete, truncate, references, trigger');
select revoke_from_others('closed_days', 'update, delete, truncate, references, trigger');
"""


def upgrade() -> None:
    for statement in (_RECONCILIATIONS, _MISMATCHES, _CORRECTIONS, _CLOSED_DAYS, _PRIVILEGES):
        op.execute(statement)
