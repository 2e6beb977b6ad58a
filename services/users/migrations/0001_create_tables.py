"""Create the tables of users, and the built-in roles."""

import json

import sqlalchemy as sa
from alembic import op

from shared.kernel_tables import create_kernel_tables
from shared.permissions import BUILT_IN_ROLES

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_DESCRIPTIONS = {
    "administrator": "Everything, everywhere.",
    "operator": "The daily work; reads users, settings and logs.",
    "auditor": "Reads everything, changes nothing.",
}

_TABLES = """
create table merchants (
    id text primary key,
    code text not null,
    name text not null,
    status text not null constraint ck_merchants_status check (status in ('active', 'disabled')),
    version integer not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create unique index uq_merchants_code on merchants (lower(code));

create table roles (
    name text primary key,
    description text not null,
    permissions jsonb not null,
    is_built_in boolean not null default false,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create unique index uq_roles_name on roles (lower(name));

create table users (
    id text primary key,
    username text not null,
    username_key text not null constraint uq_users_username unique,
    display_name text not null,
    email text,
    status text not null constraint ck_users_status check (status in ('active', 'disabled')),
    password_hash text not null,
    must_change_password boolean not null,
    sees_all_merchants boolean not null,
    last_signed_in_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create table user_roles (
    user_id text not null references users,
    role_name text not null references roles,
    primary key (user_id, role_name)
);
create index ix_user_roles_role_name on user_roles (role_name);
create table user_merchants (
    user_id text not null references users,
    merchant_id text not null references merchants,
    primary key (user_id, merchant_id)
);
create index ix_user_merchants_merchant_id on user_merchants (merchant_id);

create table api_keys (
    id text primary key,
    name text not null,
    secret_hash text not null,
    sees_all_merchants boolean not null,
    expires_at timestamptz,
    created_at timestamptz not null default now(),
    created_by text not null,
    revoked_at timestamptz
);
create table api_key_roles (
    api_key_id text not null references api_keys,
    role_name text not null references roles,
    primary key (api_key_id, role_name)
);
create index ix_api_key_roles_role_name on api_key_roles (role_name);
create table api_key_merchants (
    api_key_id text not null references api_keys,
    merchant_id text not null references merchants,
    primary key (api_key_id, merchant_id)
);

create table sessions (
    id text primary key,
    user_id text not null references users,
    address text not null,
    ip text not null,
    user_agent text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    ended_at timestamptz,
    ended_why text
);
create index ix_sessions_open on sessions (user_id) where ended_at is null;
create index ix_sessions_address on sessions (user_id, address, created_at);
create index ix_sessions_expires_at on sessions (expires_at);
create table refresh_tokens (
    token_hash bytea primary key,
    session_id text not null references sessions on delete cascade,
    issued_at timestamptz not null default now(),
    expires_at timestamptz not null,
    spent_at timestamptz
);
create index ix_refresh_tokens_session_id on refresh_tokens (session_id);

create table sign_in_failures (
    username_key text not null,
    address text not null,
    failures integer not null,
    last_failed_at timestamptz not null default now(),
    locked_until timestamptz,
    primary key (username_key, address)
);
create index ix_sign_in_failures_last_failed_at on sign_in_failures (last_failed_at);
"""


def upgrade() -> None:
    """Create everything; the built-in roles come with it, since every user needs one to do anything."""
    create_kernel_tables(op)
    for statement in filter(str.strip, _TABLES.split(";")):
        op.execute(statement)
    for name, permissions in BUILT_IN_ROLES.items():
        op.get_bind().execute(
            sa.text(
                "insert into roles (name, description, permissions, is_built_in)"
                " values (:name, :description, cast(:permissions as jsonb), true)"
            ),
            {"name": name, "description": _DESCRIPTIONS[name], "permissions": json.dumps(permissions)},
        )
