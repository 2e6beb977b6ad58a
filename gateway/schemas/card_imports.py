"""Files of cards, and what became of their rows."""

from gateway.schemas import fields
from gateway.schemas.base import Schema


class CardImportQuery(Schema):
    """How a file is taken in."""

    dry_run = fields.QueryBoolean(
        load_default=False, metadata={"description": "Say what would become of each row, and do nothing."}
    )


class RowErrorSchema(Schema):
    """Why nothing came of a row."""

    code = fields.Text(required=True)
    title = fields.Text(required=True)
    detail = fields.Text(required=True)
    errors = fields.Dict(keys=fields.Text(), values=fields.List(fields.Text()), allow_none=True)


class ImportedRowSchema(Schema):
    """What became of a row. `line` is where it begins in the file, in which the header is line 1."""

    line = fields.Integer(required=True)
    card_id = fields.Text(required=True, allow_none=True)
    number_masked = fields.Text(required=True, allow_none=True)
    error = fields.Nested(RowErrorSchema, required=True, allow_none=True)


class CardImportSchema(Schema):
    """What became of a file, row by row, in its order."""

    is_dry_run = fields.Boolean(required=True)
    created = fields.Integer(required=True)
    assigned = fields.Integer(required=True)
    refused = fields.Integer(required=True)
    items = fields.List(fields.Nested(ImportedRowSchema), required=True)
