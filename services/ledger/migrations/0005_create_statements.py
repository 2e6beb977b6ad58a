"""Create statements, and the records that payment platforms keep of what they did."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_STATEMENTS = """
create table statements (
    id text not null,
    channel text not null,
    format text not null,
    filename text,
    sha256 bytea,
    size_bytes bigint not null default 0,
    is_partial boolean not null default false,
    status text not null default 'receiving',
    chunks bigint,
    attempts smallint not null default 0,
    attempted_at timestamptz,
    percent_done smallint not null default 0,
    rows_done bigint not null default 0,
    rows_new bigint not null default 0,
    rows_changed bigint not null default 0,
    rows_refused bigint not null default 0,
    faults jsonb not null default '[]',
    first_occurred_at timestamptz,
    last_occurred_at timestamptz,
    actor_id text not null,
    actor_name text not null,
    actor_type text not null,
    request_id text not null,
    idempotency_key text,
    created_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    constraint pk_statements primary key (id),
    constraint fk_statements_channel foreign key (channel) references channels (code),
    constraint ck_statements_format check (format in ('csv', 'mt940', 'camt.053')),
    constraint ck_statements_status check (status in ('receiving', 'importing', 'imported', 'refused', 'abandoned')),
    constraint ck_statements_received check (
        status in ('receiving', 'abandoned') or (sha256 is not null and chunks is not null)),
    constraint ck_statements_finished_at check ((finished_at is null) = (status in ('receiving', 'importing')))
);

-- Of two files alike only one is taken: the other would find nothing new, and say so as if it were news.
create unique index uq_statements_sha256 on statements (channel, sha256) where status in ('importing', 'imported');
create unique index uq_statements_idempotency_key on statements (actor_id, idempotency_key);
create index ix_statements_created_at on statements (created_at, id);
create index ix_statements_unfinished on statements (status, created_at) where status in ('receiving', 'importing');

-- An uploaded file until it is imported: zlib, a piece a row. Others need not be read to find one.
create table statement_chunks (
    statement_id text not null,
    seq bigint not null,
    content bytea not null,
    constraint pk_statement_chunks primary key (statement_id, seq),
    constraint fk_statement_chunks_statement_id foreign key (statement_id) references statements (id)
);

alter table statement_chunks alter column content set storage external;

-- What a payment platform says of one payment, by its own number: what it says last, and who of us heard it.
-- `voided_by` names the correction by which a person judged that this record is to count for nothing.
create table upstream_records (
    id bigint generated always as identity,
    channel text not null,
    upstream_ref text not null,
    order_no text,
    amount bigint not null,
    fee bigint not null default 0,
    currency text not null,
    status text not null,
    occurred_at timestamptz not null,
    source text not null,
    statement_id text,
    line bigint,
    voided_by text,
    constraint pk_upstream_records primary key (id),
    constraint uq_upstream_records_upstream_ref unique (upstream_ref, channel),
    constraint ck_upstream_records_status check (status in ('pending', 'success', 'failed', 'refunded')),
    constraint ck_upstream_records_amount check (amount >= 0),
    constraint ck_upstream_records_source check (source in ('statement', 'callback', 'query', 'correction'))
);

create index ix_upstream_records_order_no on upstream_records (order_no);
-- Records come in by their days, so a summary of each few pages finds a day, at a tenth of a tree's price.
create index ix_upstream_records_day on upstream_records using brin (occurred_at)
    with (pages_per_range = 32, autosummarize = on);

select revoke_from_others('statements', 'delete, truncate, references, trigger');
select revoke_from_others('statement_chunks', 'update, truncate, references, trigger');
select revoke_from_others('upstream_records', 'delete, truncate, references, trigger');
"""

# The rows of a file wait in a temporary table until all of them are known to be right.
_ALLOW_TEMPORARY = """
do $$
declare
    other record;
begin
    for other in
        select distinct grantee::regrole::text as role
          from pg_database, aclexplode(datacl)
         where datname = current_database() and privilege_type = 'CONNECT' and grantee not in (0, datdba)
    loop
        execute format('grant temporary on database %I to %s', current_database(), other.role);
    end loop;
end $$
"""


def upgrade() -> None:
    op.execute(_STATEMENTS)
    op.execute(_ALLOW_TEMPORARY)
