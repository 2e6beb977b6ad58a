"""Add two-factor sign-in: sealed secrets and hashed recovery codes."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_STATEMENTS = """
create table totp_secrets (
    user_id text primary key references users,
    key_id text not null,
    sealed bytea not null,
    last_step bigint not null default 0,
    created_at timestamptz not null default now(),
    confirmed_at timestamptz
);
create table recovery_codes (
    user_id text not null references totp_secrets on delete cascade,
    code_hash bytea not null,
    primary key (user_id, code_hash)
);
"""


def upgrade() -> None:
    """Add the tables; nobody has a second factor yet."""
    for statement in filter(str.strip, _STATEMENTS.split(";")):
        op.execute(statement)
