"""Create the tables of cards."""

import sqlalchemy as sa
from alembic import op

from shared.kernel_tables import create_kernel_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_INSTANT = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    create_kernel_tables(op)
    op.create_table(
        "cards",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("number_index", sa.LargeBinary, nullable=False),
        sa.Column("number_sealed", sa.LargeBinary, nullable=False),
        sa.Column("number_key_id", sa.Text, nullable=False),
        sa.Column("number_masked", sa.Text, nullable=False),
        sa.Column("bin", sa.Text, nullable=False),
        sa.Column("last4", sa.Text, nullable=False),
        sa.Column("brand", sa.Text, nullable=False),
        sa.Column("holder_name", sa.Text, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("expiry", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("status_reason", sa.Text),
        sa.Column("merchant_id", sa.Text),
        sa.Column("created_at", _INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("updated_at", _INSTANT, nullable=False, server_default=sa.func.now()),
        sa.UniqueConstraint("number_index", name="uq_cards_number_index"),
        sa.CheckConstraint("status in ('inactive', 'active', 'frozen', 'closed')", name="ck_cards_status"),
        sa.CheckConstraint("expiry ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'", name="ck_cards_expiry"),
    )
    op.create_index("ix_cards_merchant_id", "cards", ["merchant_id", sa.text("id desc")])
    op.create_index("ix_cards_last4", "cards", ["last4"])
    op.create_table(
        "card_assignments",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("card_id", sa.Text, sa.ForeignKey("cards.id", name="fk_card_assignments_card_id"), nullable=False),
        sa.Column("merchant_id", sa.Text, nullable=False),
        sa.Column("assigned_at", _INSTANT, nullable=False),
        sa.Column("unassigned_at", _INSTANT),
        sa.Column("assigned_by", sa.Text, nullable=False),
        sa.CheckConstraint("unassigned_at >= assigned_at", name="ck_card_assignments_order"),
    )
    op.create_index(
        "uq_card_assignments_open",
        "card_assignments",
        ["card_id"],
        unique=True,
        postgresql_where=sa.text("unassigned_at is null"),
    )
    op.create_index("ix_card_assignments_card_id", "card_assignments", ["card_id", sa.text("id desc")])
