"""Create what became of each transfer between a merchant and a card, so that none is ever posted twice."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# A refusal is kept like a posting: whatever asks again, however late, gets the first answer.
_CARD_TRANSFERS = """
create table card_transfers (
    transfer_id text not null,
    card_id text not null,
    merchant_id text not null,
    direction text not null,
    amount bigint not null,
    currency text not null,
    refusal text,
    card_account_id bigint,
    card_version bigint,
    card_balance bigint,
    merchant_account_id bigint,
    merchant_version bigint,
    created_at timestamptz not null default clock_timestamp(),
    constraint pk_card_transfers primary key (transfer_id),
    constraint ck_card_transfers_direction check (direction in ('top_up', 'withdrawal')),
    constraint ck_card_transfers_amount check (amount > 0),
    constraint ck_card_transfers_outcome check (
        num_nulls(card_account_id, card_version, card_balance, merchant_account_id, merchant_version)
            = case when refusal is null then 0 else 5 end)
);

create unique index uq_card_transfers_card_entry on card_transfers (card_account_id, card_version);
create unique index uq_card_transfers_merchant_entry on card_transfers (merchant_account_id, merchant_version);

select revoke_from_others('card_transfers', 'update, delete, truncate, references, trigger');
"""


def upgrade() -> None:
    op.execute(_CARD_TRANSFERS)
