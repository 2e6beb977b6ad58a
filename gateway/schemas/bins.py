"""BIN ranges as the API shows and takes them."""

from marshmallow import validate

from gateway.schemas import fields
from gateway.schemas.base import PageQuery, Schema

BIN_STATUSES = ("active", "disabled")
BRANDS = ("visa", "mastercard", "amex", "unionpay", "jcb", "discover", "diners", "other")
LENGTH_MIN, LENGTH_MAX = 13, 19


class BinSchema(Schema):
    """Under which first digits cards are made. `merchant_id`: for whom alone, null for everybody."""

    bin = fields.Text(required=True)
    brand = fields.Word(BRANDS, required=True)
    length = fields.Integer(required=True)
    status = fields.Word(BIN_STATUSES, required=True)
    merchant_id = fields.Text(required=True, allow_none=True)
    created_at = fields.Timestamp(required=True)
    updated_at = fields.Timestamp(required=True)


class NewBinSchema(Schema):
    """A BIN range to register. Without `brand` and `length` it has those that its first digits say."""

    bin = fields.Text(
        required=True,
        length_min=6,
        length_max=8,
        validate=validate.Regexp(r"^[1-9][0-9]{5,7}$(?!\n)", error="A BIN is six to eight digits."),
        metadata={"example": "411111"},
    )
    brand = fields.Word(BRANDS)
    length = fields.Integer(at_least=LENGTH_MIN, at_most=LENGTH_MAX)
    status = fields.Word(BIN_STATUSES, load_default="active")
    merchant_id = fields.Identifier(allow_none=True)


class BinChangeSchema(Schema):
    """What of a BIN range changes; what is left out stays. Cards made before stay as they are."""

    brand = fields.Word(BRANDS)
    length = fields.Integer(at_least=LENGTH_MIN, at_most=LENGTH_MAX)
    status = fields.Word(BIN_STATUSES)
    merchant_id = fields.Identifier(allow_none=True)


class BinQuery(PageQuery):
    """Which BIN ranges."""

    status = fields.Word(BIN_STATUSES)
    brand = fields.Word(BRANDS)
    merchant_id = fields.Identifier()
