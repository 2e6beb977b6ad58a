"""Create the kernel's tables and the versions of parameters, which are only ever added."""

import os

from alembic import op

from shared.kernel_tables import create_kernel_tables

revision = "0001"
down_revision = None

VERSIONS = """
create table parameter_versions (
    key text not null,
    version bigint not null,
    value jsonb not null,
    previous_value jsonb not null,
    reason text not null,
    actor_id text not null,
    actor_name text not null,
    created_at timestamptz not null default clock_timestamp(),
    constraint pk_parameter_versions primary key (key, version),
    constraint ck_parameter_versions_version check (version >= 1),
    constraint ck_parameter_versions_reason check (length(reason) between 1 and 500)
);
comment on table parameter_versions is
    'every value that a parameter has had, who set it and why; the highest version is in force';
"""


def upgrade() -> None:
    """Create the tables. The application may not rewrite history."""
    create_kernel_tables(op)
    op.execute(VERSIONS)
    if app_role := os.environ.get("APP_ROLE"):
        op.execute(f'revoke update, delete on parameter_versions from "{app_role}"')
