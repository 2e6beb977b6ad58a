"""Add grants that end by themselves: a role or a merchant, until a time."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_STATEMENTS = """
create table ending_grants (
    id text primary key,
    user_id text not null references users,
    role_name text references roles,
    merchant_id text references merchants,
    ends_at timestamptz not null,
    granted_by text not null,
    granted_at timestamptz not null default now(),
    constraint ck_ending_grants_one check (num_nonnulls(role_name, merchant_id) = 1),
    constraint uq_ending_grants_role unique (user_id, role_name),
    constraint uq_ending_grants_merchant unique (user_id, merchant_id)
);
create index ix_ending_grants_ends_at on ending_grants (ends_at);
create index ix_ending_grants_role_name on ending_grants (role_name)
"""


def upgrade() -> None:
    """Add the table."""
    for statement in filter(str.strip, _STATEMENTS.split(";")):
        op.execute(statement)
