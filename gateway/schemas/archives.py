"""Archives as the API shows and takes them."""

from gateway.schemas import fields
from gateway.schemas.base import PageQuery, Schema


class NewArchiveSchema(Schema):
    """The month whose entries are to leave the log, and why."""

    month = fields.Text(required=True, length_min=7, length_max=7, metadata={"example": "2026-01"})
    reason = fields.Reason()


class ArchiveSchema(Schema):
    """A month of entries that left the log; `digest` (hexadecimal) is chained to the archive before it."""

    archive_id = fields.Text(required=True)
    number = fields.Integer(required=True)
    month = fields.Text(required=True)
    entries = fields.Integer(required=True)
    accounts = fields.Integer(required=True)
    parts = fields.Integer(required=True)
    size_bytes = fields.Integer(required=True)
    digest = fields.Text(required=True)
    reason = fields.Text(required=True)
    operator = fields.Text(required=True)
    archived_at = fields.Timestamp(required=True)


class ArchiveProofSchema(Schema):
    """What reading an archive back says."""

    archive_id = fields.Text(required=True)
    ok = fields.Boolean(required=True)
    entries = fields.Integer(required=True)
    faults = fields.List(fields.Text(), required=True)


class ArchivedEntryQuery(PageQuery):
    """Which archived entries: of a month (of UTC), by account and version."""

    month = fields.Text(required=True, length_min=7, length_max=7, metadata={"example": "2026-01"})
    user_id = fields.Identifier()
    merchant_id = fields.Identifier()
    order_no = fields.Identifier()
