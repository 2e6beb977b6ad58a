"""Create channels: the payment platforms that orders are paid through."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# `secrets` is sealed by the process (AES-GCM): neither the database nor an answer shows it.
_CHANNELS = """
create table channels (
    code text not null,
    name text not null,
    kind text not null,
    config jsonb not null default '{}',
    secrets bytea,
    status text not null default 'active',
    version bigint not null default 1,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    constraint pk_channels primary key (code),
    constraint ck_channels_kind check (kind in ('statement', 'http', 'stripe')),
    constraint ck_channels_status check (status in ('active', 'disabled')),
    constraint ck_channels_version check (version >= 1)
);

select revoke_from_others('channels', 'delete, truncate, references, trigger');
"""


def upgrade() -> None:
    op.execute(_CHANNELS)
