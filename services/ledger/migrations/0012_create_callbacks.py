"""Create what came from payment platforms: callbacks, each once, and the raw answers to what we asked."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# The row is written in the transaction of the callback's effect: a callback that comes again finds it.
_CALLBACKS = """
create table callbacks (
    channel text not null,
    webhook_id text not null,
    body_sha256 bytea not null,
    order_no text,
    upstream_ref text not null,
    outcome text not null,
    received_at timestamptz not null default clock_timestamp(),
    constraint pk_callbacks primary key (channel, webhook_id),
    constraint fk_callbacks_channel foreign key (channel) references channels (code)
);

create index ix_callbacks_order_no on callbacks (order_no);

create table upstream_answers (
    id bigint generated always as identity,
    channel text not null,
    order_no text not null,
    asked_for text not null,
    status_code int,
    body bytea not null,
    fault text,
    request_id text not null,
    asked_at timestamptz not null default clock_timestamp(),
    constraint pk_upstream_answers primary key (id),
    constraint fk_upstream_answers_channel foreign key (channel) references channels (code)
);

create index ix_upstream_answers_order_no on upstream_answers (order_no, id);

select revoke_from_others('callbacks', 'update, delete, truncate, references, trigger');
select revoke_from_others('upstream_answers', 'update, delete, truncate, references, trigger');
"""


def upgrade() -> None:
    op.execute(_CALLBACKS)
