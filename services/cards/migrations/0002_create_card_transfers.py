"""Create a card's money: its transfers from and to its merchant, its balance as last heard, its limits."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# `balance` repeats the ledger's account as the last transfer left it; `balance_version` is that account's version.
_CARDS = """
alter table cards
    add column balance bigint not null default 0,
    add column balance_version bigint not null default 0,
    add column limit_max_amount bigint,
    add column limit_daily_amount bigint,
    add column limit_daily_count bigint,
    add column limit_monthly_amount bigint,
    add constraint ck_cards_balance check (balance >= 0),
    add constraint ck_cards_limits check (
        least(limit_max_amount, limit_daily_amount, limit_daily_count, limit_monthly_amount, 0) >= 0);
"""

# A transfer is `requested` until the ledger has said what became of it. Its id is the ledger's key for it, for ever.
_TRANSFERS = """
create table card_transfers (
    id text not null,
    card_id text not null,
    merchant_id text not null,
    direction text not null,
    amount bigint not null,
    currency text not null,
    state text not null default 'requested',
    refusal text,
    balance bigint,
    idempotency_key text,
    request_hash text not null,
    actor_id text not null,
    actor_name text not null,
    actor_type text not null,
    request_id text not null,
    ip text not null,
    user_agent text not null,
    attempts int not null default 1,
    next_attempt_at timestamptz not null,
    created_at timestamptz not null default clock_timestamp(),
    settled_at timestamptz,
    constraint pk_card_transfers primary key (id),
    constraint fk_card_transfers_card_id foreign key (card_id) references cards (id),
    constraint ck_card_transfers_direction check (direction in ('top_up', 'withdrawal')),
    constraint ck_card_transfers_amount check (amount > 0),
    constraint ck_card_transfers_state check (state in ('requested', 'posted', 'refused')),
    constraint ck_card_transfers_refusal check ((refusal is not null) = (state = 'refused')),
    constraint ck_card_transfers_balance check ((balance is not null) = (state = 'posted')),
    constraint ck_card_transfers_settled_at check ((settled_at is not null) = (state <> 'requested'))
);

create index ix_card_transfers_card_id on card_transfers (card_id, id desc);
create index ix_card_transfers_counted on card_transfers (card_id, created_at) where state <> 'refused';
create index ix_card_transfers_requested on card_transfers (next_attempt_at) where state = 'requested';
create unique index uq_card_transfers_key on card_transfers (actor_id, idempotency_key)
    where idempotency_key is not null;
"""


def upgrade() -> None:
    op.execute(_CARDS)
    op.execute(_TRANSFERS)
