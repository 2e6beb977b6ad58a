"""Keep with an order which rate its fee comes from; an order that holds money holds its fee too."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# `fee_source` is null where no rate was in force, as with orders made before there were any.
_FEES = """
alter table orders add column fee_percent numeric not null default 0;
alter table orders add column fee_source text;
alter table orders add constraint ck_orders_fee_percent check (fee_percent between 0 and 100);
alter table orders add constraint ck_orders_fee_source check (
    (fee_source is null and fee = 0) or fee_source in ('channel', 'parameter'));
alter table orders drop constraint ck_orders_held;
alter table orders add constraint ck_orders_held check (
    held = case when status = 'pending' and kind in ('purchase', 'renewal', 'withdraw') then amount + fee else 0 end);
"""


def upgrade() -> None:
    op.execute(_FEES)
