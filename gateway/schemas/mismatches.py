"""Mismatches and their corrections as the API shows and takes them."""

from typing import Final

from marshmallow import validate

from gateway.schemas import fields
from gateway.schemas.base import PageQuery, ReasonSchema, Schema, TimeRangeQuery
from gateway.schemas.statements import UPSTREAM_REF_LENGTH_MAX
from shared.contracts.mismatches import BULK_MISMATCHES_MAX

KINDS: Final = (
    "missing_local_update",
    "amount_mismatch",
    "status_mismatch",
    "missing_upstream",
    "missing_local",
    "duplicate_upstream",
)
STATUSES: Final = ("open", "pending_approval", "reconciled", "corrected", "ignored")
RESOLUTIONS: Final = ("agreed", "healed", "corrected", "ignored")
ACTS: Final = (
    "find", "heal", "reconcile", "propose", "approve", "reject", "apply", "reverse", "ignore", "reopen",
)  # fmt: skip
BULK_ACTS: Final = ("reconcile", "ignore", "reopen", "correct", "approve", "reject")
DIRECTIONS: Final = ("upstream", "local")
CORRECTION_STATUSES: Final = ("proposed", "rejected", "void", "applied", "reversed")
BUCKETS: Final = ("recharge", "withdrawal", "consumption", "resets", "refund", "fees")
ORDER_KINDS: Final = ("recharge", "purchase", "renewal", "payment", "withdraw", "paid_reset")


class DifferingFieldSchema(Schema):
    """A field on which both sides disagree, and what each says."""

    field = fields.Text(required=True)
    local = fields.Text(required=True, allow_none=True)
    upstream = fields.Text(required=True, allow_none=True)


class MismatchSchema(Schema):
    """An order and a payment platform's record that do not fit, or one without the other.

    `date` is the day that it is of; `difference` is what the platform says was paid, less what we say.
    """

    id = fields.Text(required=True)
    kind = fields.Word(KINDS, required=True)
    status = fields.Word(STATUSES, required=True)
    resolution = fields.Word(RESOLUTIONS, required=True, allow_none=True)
    channel = fields.Text(required=True)
    date = fields.Day(required=True)
    merchant_id = fields.Text(required=True, allow_none=True)
    order_no = fields.Text(required=True, allow_none=True)
    upstream_ref = fields.Text(required=True, allow_none=True)
    currency = fields.Currency(required=True)
    difference = fields.Money(required=True)
    differing = fields.List(fields.Nested(DifferingFieldSchema), required=True)
    version = fields.Integer(required=True)
    opened_at = fields.Timestamp(required=True)
    updated_at = fields.Timestamp(required=True)


class MismatchActSchema(Schema):
    """One thing that was done to a mismatch: what, by whom, when and why."""

    act = fields.Word(ACTS, required=True)
    status_before = fields.Word(STATUSES, required=True, allow_none=True)
    status_after = fields.Word(STATUSES, required=True)
    reason = fields.Text(required=True, allow_none=True)
    correction_id = fields.Text(required=True, allow_none=True)
    actor_id = fields.Text(required=True)
    actor_name = fields.Text(required=True)
    actor_type = fields.Text(required=True)
    request_id = fields.Text(required=True)
    time = fields.Timestamp(required=True)


class ChangedFieldSchema(Schema):
    """A field that a correction changes."""

    field = fields.Text(required=True)
    before = fields.Text(required=True, allow_none=True)
    after = fields.Text(required=True, allow_none=True)


class ChangedRecordSchema(Schema):
    """A record of the payment platform that a correction changes: a void one counts for nothing."""

    upstream_ref = fields.Text(required=True)
    changes = fields.List(fields.Nested(ChangedFieldSchema), required=True)


class AddedRecordSchema(Schema):
    """The record that a correction adds, so that it stands for what we say."""

    order_no = fields.Text(required=True)
    amount = fields.Money(required=True)
    fee = fields.Money(required=True)
    currency = fields.Currency(required=True)
    status = fields.Text(required=True)
    occurred_at = fields.Timestamp(required=True)


class CorrectionEntrySchema(Schema):
    """An entry that a correction posts; `bucket` and `date` say which line of which day's report it counts for.

    An ordinary refund has neither: it counts as every refund does.
    """

    entry_id = fields.Text(required=True, allow_none=True)
    merchant_id = fields.Text(required=True)
    user_id = fields.Text(required=True, allow_none=True)
    type = fields.Integer(required=True)
    type_name = fields.Text(required=True)
    amount = fields.Money(required=True)
    currency = fields.Currency(required=True)
    balance = fields.Money(
        required=True, allow_none=True, metadata={"description": "The holder's balance after it, in a preview."}
    )
    bucket = fields.Word(BUCKETS, required=True, allow_none=True)
    date = fields.Day(required=True, allow_none=True)


class CorrectionContentSchema(Schema):
    """What a correction changes: the order's fields, the platform's records, and the entries that it posts."""

    content_sha256 = fields.Digest(required=True)
    order_no = fields.Text(required=True, allow_none=True)
    is_new_order = fields.Boolean(required=True)
    order = fields.List(fields.Nested(ChangedFieldSchema), required=True)
    records = fields.List(fields.Nested(ChangedRecordSchema), required=True)
    new_record = fields.Nested(AddedRecordSchema, required=True, allow_none=True)
    entries = fields.List(fields.Nested(CorrectionEntrySchema), required=True)


class CorrectionSchema(CorrectionContentSchema):
    """A correction; `content_sha256` pins what it changes, so that an approval is of this and nothing else."""

    id = fields.Text(required=True)
    mismatch_id = fields.Text(required=True)
    merchant_id = fields.Text(required=True, allow_none=True)
    to = fields.Word(DIRECTIONS, required=True)
    status = fields.Word(CORRECTION_STATUSES, required=True)
    reason = fields.Text(required=True)
    reversal_of = fields.Text(required=True, allow_none=True)
    proposed_by = fields.Text(required=True)
    proposed_by_name = fields.Text(required=True)
    decided_by = fields.Text(required=True, allow_none=True)
    decided_by_name = fields.Text(required=True, allow_none=True)
    decided_reason = fields.Text(required=True, allow_none=True)
    created_at = fields.Timestamp(required=True)
    decided_at = fields.Timestamp(required=True, allow_none=True)
    applied_at = fields.Timestamp(required=True, allow_none=True)


class RefusalSchema(Schema):
    """Why something would be refused: what its problem would say."""

    code = fields.Text(required=True)
    title = fields.Text(required=True)
    detail = fields.Text(required=True)
    errors = fields.Dict(keys=fields.Text(), values=fields.List(fields.Text()), allow_none=True)


class CorrectionPreviewSchema(CorrectionContentSchema):
    """What a correction would change, were it made now; `refusal` says why it would be refused."""

    needs_approval = fields.Boolean(required=True)
    refusal = fields.Nested(RefusalSchema, required=True, allow_none=True)


class SideSchema(Schema):
    """What one side says. `settled_at`, `refunded` are an order's; `occurred_at`, `fee`, `source` are a record's."""

    status = fields.Text()
    amount = fields.Money(currency_field=None, allow_none=True)
    currency = fields.Text(allow_none=True)
    refunded = fields.Money(currency_field=None, allow_none=True)
    fee = fields.Money(currency_field=None, allow_none=True)
    settled_at = fields.Text(allow_none=True)
    occurred_at = fields.Text(allow_none=True)
    source = fields.Text(allow_none=True)


class MismatchDetailSchema(MismatchSchema):
    """A mismatch with both sides as they were found, its history and its corrections, each newest first."""

    local = fields.Nested(SideSchema, required=True, allow_none=True)
    upstream = fields.Nested(SideSchema, required=True, allow_none=True)
    history = fields.List(fields.Nested(MismatchActSchema), required=True)
    corrections = fields.List(fields.Nested(CorrectionSchema), required=True)


class CorrectedMismatchSchema(MismatchDetailSchema):
    """The mismatch after it was corrected; or as it is, with what a correction would change, where that was asked."""

    preview = fields.Nested(CorrectionPreviewSchema, allow_none=True)


class MismatchGroupSchema(Schema):
    """Mismatches that are alike: of one channel, kind, differing fields and difference."""

    channel = fields.Text(required=True)
    kind = fields.Word(KINDS, required=True)
    differing = fields.List(fields.Text(), required=True)
    currency = fields.Currency(required=True)
    difference = fields.Money(required=True)
    count = fields.Integer(required=True)
    sum = fields.Money(required=True)
    first_opened_at = fields.Timestamp(required=True)
    last_opened_at = fields.Timestamp(required=True)


class BulkResultSchema(Schema):
    """What became of one mismatch: its status now, or its error."""

    id = fields.Text(required=True)
    status = fields.Word(STATUSES)
    error = fields.Nested(RefusalSchema)


class BulkSchema(Schema):
    """What became of each mismatch, in the order of the ids."""

    items = fields.List(fields.Nested(BulkResultSchema), required=True)
    done = fields.Integer(required=True)
    refused = fields.Integer(required=True)


class CorrectMismatchSchema(ReasonSchema):
    """Whose side is right, and why. Where we have no order, `merchant_id` and `kind` say whose to make."""

    to = fields.Word(DIRECTIONS, required=True)
    merchant_id = fields.Identifier(allow_none=True)
    user_id = fields.Identifier(allow_none=True)
    kind = fields.Word(ORDER_KINDS, allow_none=True)


class ApprovalSchema(Schema):
    """Which proposal is approved; without `content_sha256` whichever waits."""

    content_sha256 = fields.Digest(allow_none=True)
    reason = fields.Text(allow_none=True)


class NewBulkActSchema(ReasonSchema):
    """What to do to which mismatches, and why. `to` and the rest are of a correction."""

    act = fields.Word(BULK_ACTS, required=True)
    ids = fields.List(fields.Identifier(), required=True, validate=validate.Length(1, BULK_MISMATCHES_MAX))
    to = fields.Word(DIRECTIONS, allow_none=True)
    merchant_id = fields.Identifier(allow_none=True)
    user_id = fields.Identifier(allow_none=True)
    kind = fields.Word(ORDER_KINDS, allow_none=True)


class DryRunQuery(Schema):
    """Whether only to say what would change."""

    dry_run = fields.QueryBoolean(load_default=False)


class MismatchQuery(TimeRangeQuery):
    """Which mismatches. `date` is the day that they are of; `from` and `to` are of when they were opened."""

    kind = fields.List(fields.Word(KINDS))
    status = fields.List(fields.Word(STATUSES))
    channel = fields.Identifier()
    date = fields.Day()
    merchant_id = fields.Identifier()
    order_no = fields.Identifier()
    upstream_ref = fields.Text(length_min=1, length_max=UPSTREAM_REF_LENGTH_MAX)
    currency = fields.Currency()
    min_difference = fields.Money(currency_field=None, metadata={"description": "Of the absolute difference."})


class MismatchPageQuery(PageQuery, MismatchQuery):
    """Which page of mismatches."""


class CorrectionQuery(PageQuery):
    """Which corrections."""

    status = fields.List(fields.Word(CORRECTION_STATUSES))
    to = fields.Word(DIRECTIONS)
    mismatch_id = fields.Identifier()
    merchant_id = fields.Identifier()
