"""Keep the hourly totals by channel too, and find what counts for a day: the books of a day are closed with them."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# An entry of no channel is summed under ''. What was summed before this stands there too.
_TOTALS = """
alter table posting_deltas add column channel text;
alter table hourly_totals add column channel text not null default '';
alter table hourly_totals drop constraint pk_hourly_totals;
alter table hourly_totals add constraint pk_hourly_totals primary key (hour, merchant_id, currency, type, channel);
"""

_INDEXES = """
create index ix_orders_settled_at on orders (channel, settled_at) where settled_at is not null;
create index ix_order_history_refunds on order_history (created_at) where act = 'refund';
"""


def upgrade() -> None:
    op.execute(_TOTALS)
    op.execute(_INDEXES)
