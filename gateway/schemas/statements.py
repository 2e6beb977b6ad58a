"""Statements and upstream records as the API shows them."""

from gateway.schemas import fields
from gateway.schemas.base import PageQuery, Schema
from shared.contracts.statements import RECORD_SOURCES, RECORD_STATUSES, STATEMENT_FORMATS, STATEMENT_STATUSES

FILENAME_LENGTH_MAX = 200
UPSTREAM_REF_LENGTH_MAX = 128
ORDER_NO_LENGTH_MAX = 64


class FaultSchema(Schema):
    """What is wrong with a row. `line` counts from 1; `column` is the file's own name of it, or null for the row."""

    line = fields.Integer(required=True)
    column = fields.Text(required=True, allow_none=True)
    message = fields.Text(required=True)


class StatementSchema(Schema):
    """A statement, and how far its import is.

    `rows_done` have been read so far. Once it is imported, they are new, changed, unchanged or refused.
    `faults` are the first hundred.
    """

    statement_id = fields.Text(required=True)
    channel = fields.Text(required=True)
    format = fields.Word(STATEMENT_FORMATS, required=True)
    filename = fields.Text(required=True, allow_none=True)
    sha256 = fields.Text(required=True, allow_none=True)
    size_bytes = fields.Integer(required=True)
    is_partial = fields.Boolean(required=True, data_key="partial", attribute="partial")
    status = fields.Word(STATEMENT_STATUSES, required=True)
    percent_done = fields.Integer(required=True)
    rows_done = fields.Integer(required=True)
    rows_new = fields.Integer(required=True)
    rows_changed = fields.Integer(required=True)
    rows_unchanged = fields.Integer(required=True)
    rows_refused = fields.Integer(required=True)
    faults = fields.List(fields.Nested(FaultSchema), required=True)
    first_occurred_at = fields.Timestamp(required=True, allow_none=True)
    last_occurred_at = fields.Timestamp(required=True, allow_none=True)
    operator = fields.Text(required=True)
    created_at = fields.Timestamp(required=True)
    finished_at = fields.Timestamp(required=True, allow_none=True)


class StatementUploadQuery(Schema):
    """How a file is to be taken. Without `format` its first bytes tell; `partial` keeps the good rows of a bad file."""

    format = fields.Word(STATEMENT_FORMATS, load_default=None)
    is_partial = fields.QueryBoolean(data_key="partial", load_default=False)
    filename = fields.Text(length_min=1, length_max=FILENAME_LENGTH_MAX, load_default=None)


class StatementQuery(PageQuery):
    """Which statements; uploads that were abandoned only when they are asked for."""

    channel = fields.Identifier()
    status = fields.Word(STATEMENT_STATUSES)


class UpstreamRecordQuery(PageQuery):
    """Which records of a statement."""

    upstream_ref = fields.Text(length_min=1, length_max=UPSTREAM_REF_LENGTH_MAX)
    order_no = fields.Text(length_min=1, length_max=ORDER_NO_LENGTH_MAX)
    status = fields.Word(RECORD_STATUSES)


class UpstreamRecordSchema(Schema):
    """What a payment platform says of one payment. A record that a correction `voided` counts for nothing."""

    channel = fields.Text(required=True)
    upstream_ref = fields.Text(required=True)
    order_no = fields.Text(required=True, allow_none=True)
    amount = fields.Money(required=True)
    fee = fields.Money(required=True)
    currency = fields.Currency(required=True)
    status = fields.Word(RECORD_STATUSES, required=True)
    occurred_at = fields.Timestamp(required=True)
    source = fields.Word(RECORD_SOURCES, required=True)
    statement_id = fields.Text(required=True, allow_none=True)
    line = fields.Integer(required=True, allow_none=True)
    voided = fields.Boolean(required=True)
