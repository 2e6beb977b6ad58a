"""Reconciliation as the API shows and takes it."""

from typing import Final

from gateway.schemas import fields
from gateway.schemas.base import PageQuery, Schema

KINDS: Final = (
    "duplicate_upstream",
    "missing_local",
    "missing_local_update",
    "status_mismatch",
    "amount_mismatch",
    "missing_upstream",
)
STATUSES: Final = ("open", "pending_approval", "reconciled", "corrected", "ignored")
CHANGES: Final = ("new", "gone", "still")


class NewReconciliationSchema(Schema):
    """A channel's day to reconcile."""

    channel = fields.Identifier(required=True)
    date = fields.Day(required=True)


class ReconciliationSchema(Schema):
    """One run over a channel's day.

    `matched` are records that agree, `expected` may still come right within its grace, `found` does not fit, `healed`
    was open and has come right.
    """

    id = fields.Text(required=True)
    channel = fields.Text(required=True)
    date = fields.Day(required=True)
    timezone = fields.Text(required=True)
    records = fields.Integer(required=True)
    orders = fields.Integer(required=True)
    matched = fields.Integer(required=True)
    expected = fields.Integer(required=True)
    found = fields.Integer(required=True)
    healed = fields.Integer(required=True)
    previous_id = fields.Text(required=True, allow_none=True)
    actor_id = fields.Text(required=True)
    actor_name = fields.Text(required=True)
    started_at = fields.Timestamp(required=True)
    finished_at = fields.Timestamp(required=True)


class KindCountSchema(Schema):
    """How many mismatches of a kind a run saw, and how many of those are open now."""

    kind = fields.Word(KINDS, required=True)
    count = fields.Integer(required=True)
    open = fields.Integer(required=True)


class ReconciliationDetailSchema(ReconciliationSchema):
    """One run, with what it saw by kind."""

    kinds = fields.List(fields.Nested(KindCountSchema), required=True)


class ReconciliationQuery(PageQuery):
    """Which runs."""

    channel = fields.Identifier()
    date = fields.Day()


class ComparedMismatchSchema(Schema):
    """A mismatch that one or both of two runs saw."""

    change = fields.Word(CHANGES, required=True)
    mismatch_id = fields.Text(required=True)
    kind = fields.Word(KINDS, required=True)
    status = fields.Word(STATUSES, required=True)
    order_no = fields.Text(required=True, allow_none=True)
    upstream_ref = fields.Text(required=True, allow_none=True)
    merchant_id = fields.Text(required=True, allow_none=True)
    currency = fields.Currency(required=True)
    difference = fields.Money(required=True)


class ComparisonSchema(Schema):
    """What a run saw and another did not (`new`), the other way round (`gone`), and what both saw (`still`)."""

    id = fields.Text(required=True)
    with_id = fields.Text(required=True)
    new = fields.Integer(required=True)
    gone = fields.Integer(required=True)
    still = fields.Integer(required=True)
    items = fields.List(fields.Nested(ComparedMismatchSchema), required=True)
    next_cursor = fields.Text(required=True, allow_none=True)


class ComparisonQuery(PageQuery):
    """With which other run of the same channel and day, by default the one before; and which changes."""

    with_id = fields.Identifier(data_key="with")
    change = fields.Word(CHANGES)
