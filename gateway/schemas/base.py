"""The schema that all others extend, and the queries that many routes share."""

from typing import Any

import marshmallow as ma

from gateway.errors import CardNumberInText, TokenInText
from gateway.schemas import fields
from shared.errors import InvalidRequest
from shared.masking import Secret, is_secret, secret_in
from shared.money import parse_minor
from shared.paging import LIMIT_DEFAULT, LIMIT_MAX


class Schema(ma.Schema):
    """Fields in the order in which they are written, unknown ones refused, amounts checked against their currency.

    is_of_query: a query is not kept, and may look for anything; what a body says is kept, so it holds no secret.
    """

    is_of_query = False

    class Meta:
        unknown = ma.RAISE

    @ma.validates_schema
    def refuse_secrets(self, data: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse a card number or a token that stands anywhere but in its own field."""
        if self.is_of_query:
            return
        for name, field in self.fields.items():
            value = data.get(name)
            if value is not None and (found := _secret_in(field, value, name)):
                raise ma.ValidationError(SECRET_MESSAGES[found], field.data_key or name)

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


SECRET_MESSAGES: dict[Secret, str] = {"card_number": CardNumberInText.title, "token": TokenInText.title}


def _secret_in(field: ma.fields.Field[Any], value: Any, name: str) -> Secret | None:
    """Return what secret a field was sent that does not belong there."""
    if isinstance(field, fields.Text):
        found = None if is_secret(name) else secret_in(value, name)
        return found if found in field.secrets_refused else None
    if isinstance(field, fields.List):
        return next((found for item in value if (found := _secret_in(field.inner, item, name))), None)
    # A schema within checks what it holds itself, and all other kinds of fields let no text through.
    return secret_in(value, name) if type(field) in (fields.Raw, fields.Dict) else None


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
