"""Create orders, and the history of what was done to them."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# `held` is what a pending order holds of `account_id`: an account's `held` is the sum of it, which the proof checks.
_ORDERS = """
create table orders (
    id bigint generated always as identity,
    order_no text not null,
    merchant_id text not null,
    holder_type text not null,
    holder_id text not null,
    kind text not null,
    amount bigint not null,
    fee bigint not null default 0,
    refunded bigint not null default 0,
    held bigint not null default 0,
    account_id bigint,
    currency text not null,
    fraction_digits smallint not null,
    channel text,
    status text not null default 'pending',
    upstream_ref text,
    created_at timestamptz not null default clock_timestamp(),
    settled_at timestamptz,
    constraint pk_orders primary key (id),
    constraint uq_orders_order_no unique (order_no),
    constraint ck_orders_holder_type check (holder_type in ('user', 'merchant')),
    constraint ck_orders_kind check (kind in ('recharge', 'purchase', 'renewal', 'payment', 'withdraw', 'paid_reset')),
    constraint ck_orders_status check (status in ('pending', 'failed', 'settled', 'partially_refunded', 'refunded')),
    constraint ck_orders_amount check (amount > 0 or (amount = 0 and kind = 'paid_reset')),
    constraint ck_orders_fee check (fee >= 0),
    constraint ck_orders_refunded check (refunded >= 0 and refunded <= amount),
    constraint ck_orders_refund_status check (
        case status when 'partially_refunded' then refunded > 0 and refunded < amount
                    when 'refunded' then refunded = amount and refunded > 0
                    else refunded = 0 end),
    constraint ck_orders_held check (
        held = case when status = 'pending' and kind in ('purchase', 'renewal', 'withdraw') then amount else 0 end),
    constraint ck_orders_held_of check (held = 0 or account_id is not null),
    constraint ck_orders_settled_at check ((settled_at is not null) = (status not in ('pending', 'failed')))
);

create index ix_orders_created_at on orders (created_at, id);
create index ix_orders_merchant_id on orders (merchant_id, created_at, id);
create index ix_orders_holder_id on orders (holder_id, created_at, id);
create index ix_orders_held on orders (account_id, held) where held > 0;

create table order_history (
    id bigint generated always as identity,
    order_id bigint not null,
    act text not null,
    status_before text,
    status_after text not null,
    amount bigint,
    upstream_ref text,
    reason text,
    actor_id text not null,
    actor_name text not null,
    actor_type text not null,
    request_id text not null,
    created_at timestamptz not null default clock_timestamp(),
    constraint pk_order_history primary key (id),
    constraint fk_order_history_order_id foreign key (order_id) references orders (id),
    constraint ck_order_history_act check (act in ('create', 'settle', 'fail', 'refund'))
);

create index ix_order_history_order_id on order_history (order_id, id);
create unique index uq_order_history_once on order_history (order_id, act) where act <> 'refund';

select revoke_from_others('orders', 'delete, truncate, references, trigger');
select revoke_from_others('order_history', 'update, delete, truncate, references, trigger');
"""


def upgrade() -> None:
    op.execute(_ORDERS)
