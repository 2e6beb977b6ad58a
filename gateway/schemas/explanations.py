"""Explanations as the API shows and asks for them."""

from typing import Final

from gateway.schemas import fields
from gateway.schemas.base import Schema
from gateway.schemas.ledger import HOLDER_TYPES, EntrySchema
from gateway.schemas.mismatches import RefusalSchema

FEE_SOURCES: Final = ("channel", "parameter")
REQUEST_ID_LENGTH_MAX: Final = 128


class BalanceExplanationQuery(Schema):
    """Whose balance: of a user, of a card, or with neither of the merchant itself; between which instants."""

    user_id = fields.Identifier()
    card_id = fields.Identifier()
    merchant_id = fields.Identifier()
    currency = fields.Currency(required=True)
    from_time = fields.Timestamp(data_key="from", load_default=None)
    at = fields.Timestamp()


class BalancePointSchema(Schema):
    """A balance, and the version of the last entry that made it."""

    balance = fields.Money(required=True, currency_field=None)
    version = fields.Integer(required=True)


class ExplainedTotalSchema(Schema):
    """What the entries of one type changed."""

    type = fields.Integer(required=True)
    type_name = fields.Text(required=True)
    group = fields.Text(required=True)
    count = fields.Integer(required=True)
    increase = fields.Money(required=True, currency_field=None)
    decrease = fields.Money(required=True, currency_field=None)
    net = fields.Money(required=True, currency_field=None)


class HoldSchema(Schema):
    """A pending order, and what it holds."""

    order_no = fields.Text(required=True)
    kind = fields.Text(required=True)
    held = fields.Money(required=True, currency_field=None)


class BalanceProofSchema(Schema):
    """The proof of the explained entries: none lacks, each begins where the one before ended, none was changed."""

    ok = fields.Boolean(required=True)
    entries = fields.Integer(required=True)
    gaps = fields.Integer(required=True)
    broken = fields.Integer(required=True)
    changed = fields.Integer(required=True)
    sum_is_right = fields.Boolean(required=True)
    text = fields.Text(required=True, metadata={"example": "proved: 12 rows, 0 gaps"})


class BalanceExplanationSchema(Schema):
    """Why a balance: what it began with, what changed by type, what it ended with, and the proof.

    `held`, `available` and `holds` are of now, and null where `at` is named.
    """

    merchant_id = fields.Text(required=True)
    user_id = fields.Text(required=True, allow_none=True)
    holder_type = fields.Word(HOLDER_TYPES, required=True)
    holder_id = fields.Text(required=True)
    currency = fields.Currency(required=True)
    from_time = fields.Timestamp(data_key="from", required=True, allow_none=True)
    at = fields.Timestamp(required=True)
    opening = fields.Nested(BalancePointSchema, required=True)
    opening_is_archived = fields.Boolean(required=True)
    changes = fields.List(fields.Nested(ExplainedTotalSchema), required=True)
    closing = fields.Nested(BalancePointSchema, required=True)
    held = fields.Money(required=True, allow_none=True)
    available = fields.Money(required=True, allow_none=True)
    holds = fields.List(fields.Nested(HoldSchema), required=True, allow_none=True)
    proof = fields.Nested(BalanceProofSchema, required=True)


class CheckedRuleSchema(Schema):
    """A rule that a change has to meet, and whether it does."""

    rule = fields.Text(required=True)
    ok = fields.Boolean(required=True)
    detail = fields.Text(required=True)


class ChangeExplanationSchema(Schema):
    """Whether a change would be posted, and which rule would refuse it; rules after that one are not looked at.

    `may_post`: whether you have `ledger:operate`, which posting asks for.
    """

    is_allowed = fields.Boolean(required=True)
    rule = fields.Text(required=True, allow_none=True)
    refusal = fields.Nested(RefusalSchema, required=True, allow_none=True)
    rules = fields.List(fields.Nested(CheckedRuleSchema), required=True)
    may_post = fields.Boolean(required=True)
    currency = fields.Currency(required=True, allow_none=True)
    balance = fields.Money(required=True, allow_none=True)
    held = fields.Money(required=True, allow_none=True)
    available = fields.Money(required=True, allow_none=True)
    balance_after = fields.Money(required=True, allow_none=True)
    short_by = fields.Money(required=True, allow_none=True)
    holds = fields.List(fields.Nested(HoldSchema), required=True)


class RefusalQuery(Schema):
    """Which request was refused: the id that its answer bore."""

    request_id = fields.Text(length_min=1, length_max=REQUEST_ID_LENGTH_MAX, required=True)


class RefusalExplanationSchema(Schema):
    """A request that was refused: when, by which rule, and what stood in its way."""

    request_id = fields.Text(required=True)
    refused_at = fields.Timestamp(required=True)
    rule = fields.Text(required=True)
    refusal = fields.Nested(RefusalSchema, required=True)
    facts = fields.Dict(keys=fields.Text(), values=fields.Text(), required=True)


class FeeQuery(Schema):
    """Of which order."""

    order_no = fields.Identifier(required=True)


class FeeExplanationSchema(Schema):
    """How a fee came about: `amount` (that the order was made with) × `fee_percent` is `exact`, rounded to `fee`."""

    order_no = fields.Text(required=True)
    merchant_id = fields.Text(required=True)
    channel = fields.Text(required=True, allow_none=True)
    amount = fields.Money(required=True)
    currency = fields.Currency(required=True)
    fee_percent = fields.Text(required=True, metadata={"example": "0.6"})
    fee_source = fields.Word(FEE_SOURCES, required=True, allow_none=True)
    exact = fields.Text(required=True, metadata={"example": "0.075"})
    rounding = fields.Text(required=True, metadata={"example": "half up, to 2 digits"})
    fee = fields.Money(required=True)
    charged = fields.Money(required=True)
    entries = fields.List(fields.Nested(EntrySchema), required=True)
