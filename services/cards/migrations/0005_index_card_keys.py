"""Index under which key a card's number is sealed, so that those under an old one are found."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_cards_number_key_id", "cards", ["number_key_id"])
