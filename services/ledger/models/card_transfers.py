"""The table of what became of each transfer between a merchant and a card."""

from typing import Any, Final

import orjson
import sqlalchemy as sa

from shared.contracts.ledger import CardTransferOutcome
from shared.money import format_minor

card_transfers: Final = sa.Table(
    "card_transfers",
    sa.MetaData(),
    sa.Column("transfer_id", sa.Text, primary_key=True),
    sa.Column("card_id", sa.Text),
    sa.Column("merchant_id", sa.Text),
    sa.Column("direction", sa.Text),
    sa.Column("amount", sa.BigInteger),
    sa.Column("currency", sa.Text),
    sa.Column("refusal", sa.Text),
    sa.Column("card_account_id", sa.BigInteger),
    sa.Column("card_version", sa.BigInteger),
    sa.Column("card_balance", sa.BigInteger),
    sa.Column("merchant_account_id", sa.BigInteger),
    sa.Column("merchant_version", sa.BigInteger),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("digest", sa.LargeBinary),
)


def outcome_view(row: Any) -> CardTransferOutcome:
    """Return what became of a transfer, as cards knows it."""
    return {
        "transfer_id": row.transfer_id,
        "balance": None if row.card_balance is None else format_minor(row.card_balance, row.currency),
        "version": row.card_version,
        "refusal": None if row.refusal is None else orjson.loads(row.refusal),
    }
