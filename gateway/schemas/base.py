"""The schema that all others extend, and the queries that many routes share."""

from typing import Any

import marshmallow as ma

from gateway.schemas import fields
from shared.errors import InvalidRequest
from shared.money import parse_minor
from shared.paging import LIMIT_DEFAULT, LIMIT_MAX


class Schema(ma.Schema):
    """Fields in the order in which they are written, unknown ones refused, amounts checked against their currency."""

    class Meta:
        unknown = ma.RAISE

    @ma.validates_schema
    def check_fraction_digits(self, data: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse an amount with more fraction digits than its currency has."""
        for name, field in self.fields.items():
            amount = data.get(name) if isinstance(field, fields.Money) else None
            currency = data.get(field.currency_field or "") if isinstance(field, fields.Money) else None
            if amount is not None and currency is not None:
                try:
                    parse_minor(amount, currency)
                except InvalidRequest as error:
                    raise ma.ValidationError(error.detail, field.data_key or name) from None


class ReasonSchema(Schema):
    """A body that says why."""

    reason = fields.Reason()


class PageQuery(Schema):
    """The query of a list; its filters are added by subclasses."""

    limit = fields.QueryInteger(at_least=1, at_most=LIMIT_MAX, load_default=LIMIT_DEFAULT)
    cursor = fields.Text(length_min=1, length_max=2000, load_default=None)


class TimeRangeQuery(Schema):
    """A half-open range of time; reaches the service as `from_time` and `to_time`."""

    from_time = fields.Timestamp(data_key="from", load_default=None)
    to_time = fields.Timestamp(data_key="to", load_default=None)


class ProblemSchema(Schema):
    """An error, as RFC 9457 has it. `errors` leads from a field to what is wrong with it.

    A case may add members of its own, such as `missing` or `retry_after_seconds`.
    """

    class Meta:
        unknown = ma.INCLUDE

    type = fields.Text(required=True, metadata={"format": "uri-reference"})
    title = fields.Text(required=True)
    status = fields.Integer(required=True, at_least=400, at_most=599)
    detail = fields.Text(required=True)
    code = fields.Text(required=True, metadata={"description": "A stable word in snake_case."})
    request_id = fields.Text(required=True)
    errors = fields.Dict(keys=fields.Text(), values=fields.List(fields.Text()))
