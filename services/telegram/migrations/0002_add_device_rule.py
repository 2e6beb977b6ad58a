"""Add the rule `device`: whether a group hears of devices that go offline and come back."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        create table device_rules (
            binding_id text primary key constraint fk_device_rules_binding_id references bindings on delete cascade,
            enabled boolean not null
        );
        alter table notifications
            drop constraint ck_notifications_type,
            add constraint ck_notifications_type check (type in ('large_change', 'device', 'test'));
        """
    )
