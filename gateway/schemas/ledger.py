"""Balance changes, the balance log, accounts and the trial balance as the API shows and takes them."""

from typing import Any, Final

from marshmallow import ValidationError

from gateway.schemas import fields
from gateway.schemas.base import PageQuery, Schema, TimeRangeQuery
from shared.contracts.ledger import BATCH_CHANGES_MAX

HOLDER_TYPES: Final = ("user", "merchant", "card")
SIGNS: Final = ("positive", "negative", "zero", "zero_or_negative", "either")
ORDER_NUMBERS: Final = ("required", "optional", "none")


class BalanceTypeSchema(Schema):
    """What a balance type's code means. `is_admin` ones need `ledger:admin` and a reason."""

    code = fields.Integer(required=True)
    name = fields.Text(required=True)
    group = fields.Text(required=True)
    sign = fields.Word(SIGNS, required=True)
    order_no = fields.Word(ORDER_NUMBERS, required=True)
    is_admin = fields.Boolean(required=True)


class BalanceTypesSchema(Schema):
    """Every balance type."""

    items = fields.List(fields.Nested(BalanceTypeSchema), required=True)
    next_cursor = fields.Text(required=True, allow_none=True)


class NewBalanceChangeSchema(Schema):
    """A change of a balance; without `user_id` of the merchant's own account."""

    merchant_id = fields.Identifier(required=True)
    user_id = fields.Identifier(allow_none=True)
    type = fields.Integer(required=True, at_least=0, at_most=9999, metadata={"example": 321})
    amount = fields.Money(required=True)
    currency = fields.Currency(required=True)
    order_no = fields.Identifier(allow_none=True)
    channel = fields.Identifier(allow_none=True)
    note = fields.Text(allow_none=True)
    reason = fields.Text(allow_none=True)


class EntrySchema(Schema):
    """One row of the balance log; `balance` is the holder's balance right after it."""

    entry_id = fields.Text(required=True)
    user_id = fields.Text(required=True, allow_none=True)
    holder_type = fields.Word(HOLDER_TYPES, required=True)
    holder_id = fields.Text(required=True)
    merchant_id = fields.Text(required=True)
    amount = fields.Money(required=True)
    currency = fields.Currency(required=True)
    order_no = fields.Text(required=True, allow_none=True)
    balance = fields.Money(required=True)
    version = fields.Integer(required=True)
    type = fields.Integer(required=True)
    type_name = fields.Text(required=True)
    group = fields.Text(required=True)
    time = fields.Timestamp(required=True)
    operator = fields.Text(required=True, allow_none=True)
    channel = fields.Text(required=True, allow_none=True)
    note = fields.Text(required=True, allow_none=True)
    reason = fields.Text(required=True, allow_none=True)


class ChangeErrorSchema(Schema):
    """Why a change of a batch was refused: what a problem says of a single one."""

    code = fields.Text(required=True)
    title = fields.Text(required=True)
    detail = fields.Text(required=True)
    errors = fields.Dict(keys=fields.Text(), values=fields.List(fields.Text()), allow_none=True)


class ChangeResultSchema(Schema):
    """What became of one change of a batch: its entry, or its error."""

    entry = fields.Nested(EntrySchema)
    error = fields.Nested(ChangeErrorSchema)


def _at_most_a_batch(changes: Any) -> None:
    # Each change is checked by the ledger: here it would cost more than posting it.
    if type(changes) is not list or not changes:
        raise ValidationError(f"Must be a list of 1 to {BATCH_CHANGES_MAX} changes.")


class NewBatchSchema(Schema):
    """Up to 10 000 changes, posted in their order; `atomic` ones all or none."""

    changes = fields.Raw(
        required=True,
        validate=_at_most_a_batch,
        metadata={
            "type": "array",
            "minItems": 1,
            "maxItems": BATCH_CHANGES_MAX,
            "items": {"$ref": "#/components/schemas/NewBalanceChange"},
        },
    )
    atomic = fields.Boolean(load_default=True)


class BatchSchema(Schema):
    """What became of each change, in the order of the batch."""

    items = fields.List(fields.Nested(ChangeResultSchema), required=True)
    posted = fields.Integer(required=True)
    refused = fields.Integer(required=True)


class LogQuery(TimeRangeQuery):
    """Which rows of the balance log. Without `date`, `from` and `to` those of today."""

    date = fields.Day()
    user_id = fields.Identifier()
    holder_type = fields.Word(HOLDER_TYPES)
    merchant_id = fields.Identifier()
    currency = fields.Currency()
    order_no = fields.Identifier()
    type = fields.List(
        fields.Identifier(), metadata={"description": "A code, a name (Admin Adjust is 326 and 335) or a group."}
    )
    group = fields.List(fields.Identifier())
    min_amount = fields.Money(currency_field=None)
    max_amount = fields.Money(currency_field=None)


class LogPageQuery(PageQuery, LogQuery):
    """Which page of the balance log."""


class TypeTotalSchema(Schema):
    """The total of one balance type in one currency: `net` is `increase` and `decrease` together."""

    type = fields.Integer(required=True)
    type_name = fields.Text(required=True)
    group = fields.Text(required=True)
    currency = fields.Currency(required=True)
    count = fields.Integer(required=True)
    increase = fields.Money(required=True)
    decrease = fields.Money(required=True)
    net = fields.Money(required=True)


class CurrencyTotalSchema(Schema):
    """The total of all types in one currency."""

    currency = fields.Currency(required=True)
    count = fields.Integer(required=True)
    increase = fields.Money(required=True)
    decrease = fields.Money(required=True)
    net = fields.Money(required=True)


class SummarySchema(Schema):
    """The totals of a filtered balance log, by type and over all.

    `archived_before`: entries older than this have left for archives, and the totals lack them; null where they do not.
    """

    items = fields.List(fields.Nested(TypeTotalSchema), required=True)
    totals = fields.List(fields.Nested(CurrencyTotalSchema), required=True)
    archived_before = fields.Timestamp(required=True, allow_none=True)


class AccountSchema(Schema):
    """A holder's account in one currency; `available` is what is not held."""

    user_id = fields.Text(required=True, allow_none=True)
    holder_type = fields.Word(HOLDER_TYPES, required=True)
    holder_id = fields.Text(required=True)
    merchant_id = fields.Text(required=True)
    currency = fields.Currency(required=True)
    wallet = fields.Text(required=True)
    balance = fields.Money(required=True)
    held = fields.Money(required=True)
    available = fields.Money(required=True)
    version = fields.Integer(required=True)
    updated_at = fields.Timestamp(required=True)


class AccountQuery(PageQuery):
    """Which accounts."""

    merchant_id = fields.Identifier()
    user_id = fields.Identifier()
    holder_type = fields.Word(HOLDER_TYPES)
    currency = fields.Currency()


class UserAccountsSchema(Schema):
    """A user's accounts, one a currency."""

    items = fields.List(fields.Nested(AccountSchema), required=True)
    next_cursor = fields.Text(required=True, allow_none=True)


class SystemAccountSchema(Schema):
    """A system account: the other leg of every entry against it."""

    name = fields.Text(required=True)
    balance = fields.Money(required=True, currency_field=None)


class TrialBalanceSchema(Schema):
    """One currency: `sum` over the holders' and the system's accounts is always "0"."""

    currency = fields.Currency(required=True)
    sum = fields.Money(required=True)
    holders = fields.Money(required=True)
    system = fields.Money(required=True)
    system_accounts = fields.List(fields.Nested(SystemAccountSchema), required=True)


class TrialBalancesSchema(Schema):
    """The trial balance, a currency each."""

    items = fields.List(fields.Nested(TrialBalanceSchema), required=True)
    next_cursor = fields.Text(required=True, allow_none=True)
