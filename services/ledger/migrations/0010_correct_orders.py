"""Let an order be corrected, any number of times: the history says so, and every other act still happens once."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_ACTS = """
alter table order_history drop constraint ck_order_history_act;
alter table order_history add constraint ck_order_history_act
    check (act in ('create', 'settle', 'fail', 'refund', 'correct'));
drop index uq_order_history_once;
create unique index uq_order_history_once on order_history (order_id, act) where act not in ('refund', 'correct');
"""


def upgrade() -> None:
    op.execute(_ACTS)
