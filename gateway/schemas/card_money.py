"""A card's money as the API shows and takes it."""

from typing import Final

from gateway.schemas import fields
from gateway.schemas.base import PageQuery, Schema, TimeRangeQuery

DIRECTIONS: Final = ("top_up", "withdrawal")
STATES: Final = ("requested", "posted", "refused")


class CardAmountSchema(Schema):
    """How much goes between the merchant's account and the card's, in the card's currency."""

    amount = fields.Money(required=True, currency_field=None)


class TransferRefusalSchema(Schema):
    """Why a transfer was refused."""

    code = fields.Text(required=True)
    detail = fields.Text(required=True)


class CardTransferSchema(Schema):
    """A transfer between a merchant's account and a card's; `balance` is the card's right after a posted one."""

    transfer_id = fields.Text(required=True)
    card_id = fields.Text(required=True)
    merchant_id = fields.Text(required=True)
    direction = fields.Word(DIRECTIONS, required=True)
    amount = fields.Money(required=True)
    currency = fields.Currency(required=True)
    state = fields.Word(STATES, required=True)
    balance = fields.Money(required=True, allow_none=True)
    refusal = fields.Nested(TransferRefusalSchema, required=True, allow_none=True)
    requested_by = fields.Text(required=True)
    created_at = fields.Timestamp(required=True)
    settled_at = fields.Timestamp(required=True, allow_none=True)


class CardBalanceSchema(Schema):
    """A card's money as the ledger has it; `transfers_under_way` may change it yet."""

    card_id = fields.Text(required=True)
    merchant_id = fields.Text(required=True, allow_none=True)
    currency = fields.Currency(required=True)
    balance = fields.Money(required=True)
    held = fields.Money(required=True)
    available = fields.Money(required=True)
    version = fields.Integer(required=True)
    transfers_under_way = fields.Integer(required=True)
    updated_at = fields.Timestamp(required=True, allow_none=True)


class CardLogQuery(PageQuery, TimeRangeQuery):
    """Which rows of a card's balance log; without `date`, `from` and `to` all of them."""

    date = fields.Day()
    type = fields.List(fields.Identifier(), metadata={"description": "A code, a name (Card Top-up is 511) or a group."})
