"""Cards as the API shows and takes them."""

from gateway.schemas import fields
from gateway.schemas.base import PageQuery, Schema

STATUSES = ("inactive", "active", "frozen", "closed")


class CardSchema(Schema):
    """A virtual card. Its number shows the first six and the last four digits only."""

    id = fields.Text(required=True)
    number_masked = fields.Text(required=True)
    last4 = fields.Text(required=True)
    bin = fields.Text(required=True)
    brand = fields.Text(required=True)
    holder_name = fields.Text(required=True)
    currency = fields.Text(required=True)
    expiry = fields.Text(required=True)
    status = fields.Word(STATUSES, required=True)
    status_reason = fields.Text(required=True, allow_none=True)
    merchant_id = fields.Text(required=True, allow_none=True)
    created_at = fields.Timestamp(required=True)
    updated_at = fields.Timestamp(required=True)


class NewCardSchema(Schema):
    """A card to make. Its `number` is Luhn-checked; without one it is made from the `bin`."""

    number = fields.Text(length_min=12, length_max=19)
    bin = fields.Text(length_min=6, length_max=8)
    holder_name = fields.Text(required=True, length_min=1, length_max=100)
    currency = fields.Currency(required=True)
    expiry = fields.Text(required=True, length_max=7)
    merchant_id = fields.Identifier(load_default=None, allow_none=True)


class CardQuery(PageQuery):
    """Which cards."""

    q = fields.Text(length_max=100)
    status = fields.Word(STATUSES)
    merchant_id = fields.Identifier()
    brand = fields.Text(length_max=30)
    currency = fields.Currency()
    last4 = fields.Text(length_min=4, length_max=4)
