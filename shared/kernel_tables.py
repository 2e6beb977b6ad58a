"""The tables that every service's database has: outbox, inbox, idempotency keys, and copies of others' facts."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

metadata = sa.MetaData()

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("event_id", sa.Text, nullable=False),
    sa.Column("routing_key", sa.Text, nullable=False),
    sa.Column("envelope", sa.Text, nullable=False, comment="JSON, as it goes over the bus"),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
    comment="events that happened and are not yet on the bus; a row lives until the broker confirmed it",
)

inbox = sa.Table(
    "inbox",
    metadata,
    sa.Column("handler", sa.Text, primary_key=True),
    sa.Column("event_id", sa.Text, primary_key=True),
    sa.Column("received_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now(), index=True),
    comment="events whose effect is in this database, so that a second delivery has none",
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("caller", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("request_hash", sa.Text, nullable=False),
    sa.Column("answer", sa.Text, comment="JSON of the result; null where the answer holds a secret"),
    sa.Column("error", sa.Text, comment="JSON of the refusal, which is an answer too"),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now(), index=True),
)

parameter_copies = sa.Table(
    "parameter_copies",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", JSONB, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    comment="the settings that this service has heard of; the settings service owns them",
)

merchant_copies = sa.Table(
    "merchant_copies",
    metadata,
    sa.Column("merchant_id", sa.Text, primary_key=True),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    comment="the merchants that this service has heard of; the users service owns them",
)


def create_kernel_tables(op: Any) -> None:
    """Create these tables in a service's first migration. op: Alembic's operations."""
    metadata.create_all(op.get_bind())
