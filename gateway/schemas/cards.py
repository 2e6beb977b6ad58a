"""Cards as the API shows and takes them."""

from typing import Any

from marshmallow import validate

from gateway.schemas import fields
from gateway.schemas.base import PageQuery, Schema

CARDS_PER_ASSIGNMENT_MAX = 1_000
STATUSES = ("inactive", "active", "frozen", "closed")


class CardLimitsSchema(Schema):
    """What may be put onto a card: by one top-up, in a day, in a month. null is no limit."""

    max_amount = fields.Money(allow_none=True, currency_field=None)
    daily_amount = fields.Money(allow_none=True, currency_field=None)
    daily_count = fields.Integer(allow_none=True, at_least=0, at_most=1_000_000)
    monthly_amount = fields.Money(allow_none=True, currency_field=None)


class CardSchema(Schema):
    """A virtual card. Its number shows the first six and the last four digits only.

    `balance` is what its last transfer left.
    """

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
    balance = fields.Money(required=True)
    limits = fields.Nested(CardLimitsSchema, required=True)
    created_at = fields.Timestamp(required=True)
    updated_at = fields.Timestamp(required=True)


class CardListSchema(Schema):
    """The cards that fit: one or none."""

    items = fields.List(fields.Nested(CardSchema), required=True)
    next_cursor = fields.Text(required=True, allow_none=True)


class NumberField(fields.Text):
    """A full card number, with or without spaces and hyphens. It is never answered."""

    secrets_refused = frozenset({"token"})

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(length_min=12, length_max=30, metadata={"example": "4111 1111 1111 1111"}, **kwargs)


class ExpiryField(fields.Text):
    """A card's last month."""

    def __init__(self, **kwargs: Any) -> None:
        description = "The last month: 2029-05 or 05/29."
        super().__init__(length_min=5, length_max=7, metadata={"description": description}, **kwargs)


class NewCardSchema(Schema):
    """A card to make. Its `number` is Luhn-checked; without one it is made from the `bin`."""

    number = NumberField(load_default=None)
    bin = fields.Text(length_min=6, length_max=8, load_default=None)
    holder_name = fields.Text(required=True, length_min=1, length_max=100)
    currency = fields.Currency(required=True)
    expiry = ExpiryField(load_default=None, allow_none=True)
    merchant_id = fields.Identifier(load_default=None, allow_none=True)


class CardChangeSchema(Schema):
    """What of a card changes; what is left out stays, of its limits too."""

    holder_name = fields.Text(length_min=1, length_max=100, load_default=None)
    expiry = ExpiryField(load_default=None)
    limits = fields.Nested(CardLimitsSchema)


class CardNumberSchema(Schema):
    """The full number of the card that is looked for."""

    number = NumberField(required=True)


class CardMerchantSchema(Schema):
    """Who gets the card; null for nobody."""

    merchant_id = fields.Identifier(required=True, allow_none=True)


class BulkAssignmentSchema(Schema):
    """Which cards go to which merchant."""

    card_ids = fields.List(fields.Identifier(), required=True, validate=validate.Length(1, CARDS_PER_ASSIGNMENT_MAX))
    merchant_id = fields.Identifier(required=True)


class BulkAssignedSchema(Schema):
    """The cards, in the order that they were named, and how many of them changed hands."""

    items = fields.List(fields.Nested(CardSchema), required=True)
    changed = fields.Integer(required=True)


class AssignmentSchema(Schema):
    """The half-open interval during which a merchant held the card; without an end it still does."""

    card_id = fields.Text(required=True)
    merchant_id = fields.Text(required=True)
    assigned_at = fields.Timestamp(required=True)
    unassigned_at = fields.Timestamp(required=True, allow_none=True)


class RevealedCardSchema(Schema):
    """The one answer that holds a full card number."""

    id = fields.Text(required=True)
    number = fields.Text(required=True)
    expiry = fields.Text(required=True)


class CardQuery(PageQuery):
    """Which cards. `q`: the last four digits, the BIN, a card's id, or a part of the holder's name."""

    q = fields.Text(length_max=100, load_default=None)
    status = fields.Word(STATUSES, load_default=None)
    merchant_id = fields.Identifier(load_default=None)
    brand = fields.Text(length_max=30, load_default=None)
    currency = fields.Currency(load_default=None)
    last4 = fields.Text(length_min=4, length_max=4, load_default=None)
