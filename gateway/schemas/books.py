"""The books of days and months as the API shows and takes them."""

from typing import Final

from gateway.schemas import fields
from gateway.schemas.base import PageQuery, Schema

CHECKS: Final = ("recharge_total", "consumption_total", "large_changes", "refunds_complete")
UNITS: Final = ("amount", "count")


class DayQuery(Schema):
    """Which day."""

    date = fields.Day(required=True)


class MonthQuery(Schema):
    """Which month, by default the last one that is over."""

    month = fields.Month()


class CheckSchema(Schema):
    """One daily check of a currency, and of a channel where that applies. `rows` leads to the rows behind it."""

    name = fields.Word(CHECKS, required=True)
    currency = fields.Currency(required=True)
    channel = fields.Text(required=True, allow_none=True)
    unit = fields.Word(UNITS, required=True)
    expected = fields.Money(required=True, currency_field=None)
    actual = fields.Money(required=True, currency_field=None)
    difference = fields.Money(required=True, currency_field=None)
    tolerance = fields.Money(required=True, currency_field=None)
    ok = fields.Boolean(required=True)
    rows = fields.Text(required=True, metadata={"format": "uri-reference"})


class FiguresSchema(Schema):
    """What a period came to in one currency and channel.

    What went out is positive too. `consumption` holds paid resets; `balance_change` is of all entries of the period.
    """

    currency = fields.Currency(required=True)
    channel = fields.Text(required=True, allow_none=True)
    recharge = fields.Money(required=True)
    withdrawal = fields.Money(required=True)
    consumption = fields.Money(required=True)
    refund = fields.Money(required=True)
    fees = fields.Money(required=True)
    balance_change = fields.Money(required=True)
    entries = fields.Integer(required=True)


class DailySchema(Schema):
    """The four checks of a day, and its figures: of a closed day as it was sealed, with what came after apart.

    A day of which entries have left the log (`is_archived`) has no checks any more.
    """

    date = fields.Day(required=True)
    timezone = fields.Text(required=True)
    closed_at = fields.Timestamp(required=True, allow_none=True)
    is_archived = fields.Boolean(required=True)
    items = fields.List(fields.Nested(CheckSchema), required=True)
    figures = fields.List(fields.Nested(FiguresSchema), required=True)
    after_close = fields.List(fields.Nested(FiguresSchema), required=True)


class CheckRowSchema(Schema):
    """One row behind a check: an order, a record that names none, or of `large_changes` an entry."""

    order_no = fields.Text(required=True, allow_none=True)
    upstream_ref = fields.Text(required=True, allow_none=True)
    entry_id = fields.Text(required=True, allow_none=True)
    merchant_id = fields.Text(required=True, allow_none=True)
    channel = fields.Text(required=True, allow_none=True)
    currency = fields.Currency(required=True)
    expected = fields.Money(required=True)
    actual = fields.Money(required=True)
    difference = fields.Money(required=True)


class CheckRowQuery(PageQuery):
    """Which check of which day. `all=true` shows the rows that agree too; `no_channel=true` those of no channel."""

    date = fields.Day(required=True)
    check = fields.Word(CHECKS, required=True)
    currency = fields.Currency()
    channel = fields.Identifier()
    no_channel = fields.QueryBoolean()
    all = fields.QueryBoolean()


class DayFiguresSchema(Schema):
    """One day of a month."""

    date = fields.Day(required=True)
    is_closed = fields.Boolean(required=True)
    items = fields.List(fields.Nested(FiguresSchema), required=True)


class MonthlySchema(Schema):
    """The figures of a month: the sum of its days, closed ones as they were sealed; what came after apart."""

    month = fields.Month(required=True)
    timezone = fields.Text(required=True)
    is_closed = fields.Boolean(required=True)
    items = fields.List(fields.Nested(FiguresSchema), required=True)
    after_close = fields.List(fields.Nested(FiguresSchema), required=True)
    days = fields.List(fields.Nested(DayFiguresSchema), required=True)


class DayToCloseSchema(Schema):
    """A day to close, and why; `force` closes it although something of it is open."""

    date = fields.Day(required=True)
    reason = fields.Reason()
    force = fields.Boolean()


class ClosedDaySchema(Schema):
    """A day whose books are closed. `digest` is of its totals and of the digest of the day before."""

    date = fields.Day(required=True)
    timezone = fields.Text(required=True)
    starts_at = fields.Timestamp(required=True)
    ends_at = fields.Timestamp(required=True)
    digest = fields.Text(required=True)
    previous_digest = fields.Text(required=True, allow_none=True)
    reason = fields.Text(required=True)
    actor_id = fields.Text(required=True)
    actor_name = fields.Text(required=True)
    closed_at = fields.Timestamp(required=True)
