"""Create bindings, their rules, the queue of notifications, and the pace at which it is emptied."""

from alembic import op

from shared.kernel_tables import create_kernel_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BINDINGS = """
create table bindings (
    id text primary key,
    merchant_id text not null,
    chat_id bigint not null,
    title text not null,
    status text not null default 'active',
    status_reason text,
    language text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint uq_bindings_chat_id unique (chat_id),
    constraint ck_bindings_status check (status in ('active', 'disabled')),
    constraint ck_bindings_language check (language in ('en', 'zh'))
);
create index ix_bindings_merchant_id on bindings (merchant_id, id desc);

create table large_change_rules (
    binding_id text primary key constraint fk_large_change_rules_binding_id references bindings on delete cascade,
    enabled boolean not null,
    threshold numeric(20, 6),
    constraint ck_large_change_rules_threshold check (threshold > 0)
);
"""

# The row of chat 0 is the pace of all chats together, and the lock by which senders take turns.
_PACE = """
create table pace (
    chat_id bigint primary key,
    theoretical_at timestamptz not null default 'epoch',
    paused_until timestamptz not null default 'epoch'
);
insert into pace (chat_id) values (0);
"""

# The messages of one event are made by one statement: clock_timestamp() keeps them in their order.
_NOTIFICATIONS = """
create table notifications (
    id text primary key,
    binding_id text not null,
    merchant_id text not null,
    chat_id bigint not null,
    type text not null,
    text text not null,
    event_id text,
    entry_id text,
    status text not null default 'queued',
    attempts bigint not null default 0,
    failures bigint not null default 0,
    may_be_repeat boolean not null default false,
    due_at timestamptz not null default clock_timestamp(),
    lease_token text,
    last_error text,
    message_id bigint,
    created_at timestamptz not null default now(),
    sent_at timestamptz,
    constraint uq_notifications_source unique (event_id, entry_id, binding_id),
    constraint ck_notifications_type check (type in ('large_change', 'test')),
    constraint ck_notifications_status check (status in ('queued', 'sent', 'failed', 'dead', 'suppressed')),
    constraint ck_notifications_sent check ((status = 'sent') = (message_id is not null))
);
create index ix_notifications_merchant_id on notifications (merchant_id, id desc);
create index ix_notifications_binding_id on notifications (binding_id, id desc);
create index ix_notifications_due on notifications (chat_id, due_at) where status in ('queued', 'failed');
"""


def upgrade() -> None:
    create_kernel_tables(op)
    for statements in (_BINDINGS, _PACE, _NOTIFICATIONS):
        op.execute(statements)
