"""Create the timeline of cards, with what is known of those that exist: when they were made, and who held them."""

import os

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Without a foreign key, which would lock the card's row after the device's, where binding locks them the other way.
_CARD_EVENTS = """
create table card_events (
    id bigint generated always as identity,
    card_id text not null,
    kind text not null,
    event text not null,
    occurred_at timestamptz not null default clock_timestamp(),
    merchant_id text,
    actor_id text not null,
    actor_name text not null,
    actor_type text not null,
    request_id text not null,
    reason text,
    changes jsonb,
    details jsonb not null,
    constraint pk_card_events primary key (id)
);
create index ix_card_events_card_id on card_events (card_id, id desc);

insert into card_events (card_id, kind, event, occurred_at, merchant_id, actor_id, actor_name, actor_type, request_id,
                         changes, details)
select * from (
    select id, 'status', 'CardCreated', created_at, null, 'system:cards', 'cards', 'system', '', null::jsonb,
           jsonb_build_object('brand', brand, 'currency', currency)
      from cards
    union all
    select card_id, 'merchant', 'CardAssigned', assigned_at, merchant_id, assigned_by, assigned_by, 'user', '',
           jsonb_build_object('merchant_id', jsonb_build_object('before', null, 'after', merchant_id)), '{}'::jsonb
      from card_assignments
) as known (card_id, kind, event, occurred_at, merchant_id, actor_id, actor_name, actor_type, request_id, changes,
            details)
order by occurred_at, event desc;
"""


def upgrade() -> None:
    op.execute(_CARD_EVENTS)
    if role := os.environ.get("APP_ROLE"):
        op.execute(f'revoke update, delete on card_events from "{role}"')
