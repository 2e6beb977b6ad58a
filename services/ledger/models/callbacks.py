"""The tables of callbacks and of platforms' raw answers. Constraints stand in the migration."""

from typing import Final

import sqlalchemy as sa

_metadata = sa.MetaData()

callbacks: Final = sa.Table(
    "callbacks",
    _metadata,
    sa.Column("channel", sa.Text, primary_key=True),
    sa.Column("webhook_id", sa.Text, primary_key=True),
    sa.Column("body_sha256", sa.LargeBinary),
    sa.Column("order_no", sa.Text),
    sa.Column("upstream_ref", sa.Text),
    sa.Column("outcome", sa.Text),
    sa.Column("received_at", sa.DateTime(timezone=True)),
)

upstream_answers: Final = sa.Table(
    "upstream_answers",
    _metadata,
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("channel", sa.Text),
    sa.Column("order_no", sa.Text),
    sa.Column("asked_for", sa.Text),
    sa.Column("status_code", sa.Integer),
    sa.Column("body", sa.LargeBinary),
    sa.Column("fault", sa.Text),
    sa.Column("request_id", sa.Text),
    sa.Column("asked_at", sa.DateTime(timezone=True)),
)
