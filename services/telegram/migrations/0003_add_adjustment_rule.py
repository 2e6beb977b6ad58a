"""Add the rule `adjustment`: whether a group hears of balances that the platform's staff adjusts."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        create table adjustment_rules (
            binding_id text primary key
                constraint fk_adjustment_rules_binding_id references bindings on delete cascade,
            enabled boolean not null
        );
        alter table notifications
            drop constraint ck_notifications_type,
            add constraint ck_notifications_type check (type in ('large_change', 'adjustment', 'device', 'test'));
        """
    )
