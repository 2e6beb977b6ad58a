"""Strict fields: nothing is converted, and money is a string.

`Integer` and `Boolean` are for bodies, `QueryInteger` and `QueryBoolean` for queries, where everything is text.
"""

from collections.abc import Iterable
from datetime import date
from typing import Any

from marshmallow import ValidationError, fields, validate

from shared.errors import InvalidRequest
from shared.masking import Secret
from shared.money import fraction_digits
from shared.times import parse_rfc3339, rfc3339

REASON_LENGTH_MAX = 500
TEXT_LENGTH_MAX = 500
IDENTIFIER_LENGTH_MAX = 64
# Python's `$` lets a line end pass, which the look-ahead does not; so the pattern means the same to all its readers.
DECIMAL_PATTERN = r"^[+-]?(0|[1-9][0-9]{0,18})(\.[0-9]{1,6})?$(?!\n)"
BIGINT_MAX = 2**63 - 1

List = fields.List
Nested = fields.Nested
Dict = fields.Dict
Raw = fields.Raw


class Text(fields.String):
    """A text of bounded length. In a body it holds none of `secrets_refused`: `schemas.base.Schema` sees to it."""

    secrets_refused: frozenset[Secret] = frozenset({"card_number", "token"})

    def __init__(self, *, length_min: int = 0, length_max: int = TEXT_LENGTH_MAX, **kwargs: Any) -> None:
        bounds = validate.Length(min=length_min or None, max=length_max)
        super().__init__(validate=[bounds, *_validators(kwargs)], **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise self.make_error("invalid")
        return value


class Identifier(Text):
    """An opaque id, or a code."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(length_min=1, length_max=IDENTIFIER_LENGTH_MAX, **kwargs)


class Reason(Text):
    """Why a dangerous act is done: required, 1 to 500 characters, not blank; it stands in the audit log."""

    def __init__(self, **kwargs: Any) -> None:
        not_blank = validate.Regexp(r"(?s).*\S", error="A reason says something.")
        super().__init__(length_min=1, length_max=REASON_LENGTH_MAX, validate=not_blank, **{"required": True} | kwargs)


class Digest(fields.String):
    """A SHA-256 in hexadecimal. One in three hundred looks as if a card number stood in it, so it is no `Text`."""

    def __init__(self, **kwargs: Any) -> None:
        pattern = validate.Regexp(r"^[0-9a-f]{64}$(?!\n)", error="A digest has 64 hexadecimal digits.")
        super().__init__(validate=[pattern, *_validators(kwargs)], **kwargs)


class Word(fields.String):
    """One word of a closed list."""

    def __init__(self, choices: Iterable[str], **kwargs: Any) -> None:
        super().__init__(validate=[validate.OneOf(list(choices)), *_validators(kwargs)], **kwargs)


class Money(fields.String):
    """A decimal string such as "-12.50"; a number, be it whole or a float, is refused.

    Whether it has no more fraction digits than its currency is checked by `schemas.base.Schema`.
    """

    def __init__(self, *, currency_field: str | None = "currency", **kwargs: Any) -> None:
        self.currency_field = currency_field
        pattern = validate.Regexp(DECIMAL_PATTERN, error='An amount is a decimal string such as "-12.50".')
        kwargs["metadata"] = {"description": "A decimal string.", "example": "12.50"} | kwargs.get("metadata", {})
        super().__init__(validate=[pattern, *_validators(kwargs)], **kwargs)


class Currency(fields.String):
    """A currency of ISO 4217, or USDT."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs["metadata"] = {"example": "CNY", "minLength": 3, "maxLength": 4} | kwargs.get("metadata", {})
        super().__init__(validate=[_known_currency, *_validators(kwargs)], **kwargs)


class Integer(fields.Integer):
    """A whole number: no text, no float, no boolean."""

    def __init__(self, *, at_least: int | None = None, at_most: int = BIGINT_MAX, **kwargs: Any) -> None:
        super().__init__(strict=True, validate=[validate.Range(at_least, at_most), *_validators(kwargs)], **kwargs)


class Boolean(fields.Boolean):
    """true or false, and nothing that looks like them."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class QueryInteger(fields.Integer):
    """A whole number in a query."""

    def __init__(self, *, at_least: int | None = None, at_most: int = BIGINT_MAX, **kwargs: Any) -> None:
        super().__init__(validate=[validate.Range(at_least, at_most), *_validators(kwargs)], **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        digits = str(value).removeprefix("-")
        if not (digits.isascii() and digits.isdigit()):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class QueryBoolean(fields.Boolean):
    """`true` or `false` in a query."""

    truthy = {"true"}
    falsy = {"false"}


class Timestamp(fields.String):
    """An instant as RFC 3339 with its offset; passed on in UTC."""

    def __init__(self, **kwargs: Any) -> None:
        metadata = {"format": "date-time", "example": "2026-11-22T09:30:00Z"}
        super().__init__(**kwargs | {"metadata": metadata | kwargs.get("metadata", {})})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        try:
            return rfc3339(parse_rfc3339(super()._deserialize(value, attr, data, **kwargs)))
        except (ValueError, OverflowError):
            raise ValidationError("A time is RFC 3339 with an offset, such as 2026-11-22T09:30:00Z.") from None


class Day(fields.String):
    """A calendar day such as 2026-11-22, of the parameter `system.timezone`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs | {"metadata": {"format": "date"} | kwargs.get("metadata", {})})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if not _is_day(text):
            raise ValidationError("A day is written as 2026-11-22.")
        return text


class Month(fields.String):
    """A calendar month such as 2026-11."""

    def __init__(self, **kwargs: Any) -> None:
        metadata = {"pattern": "^[0-9]{4}-(0[1-9]|1[0-2])$", "example": "2026-11"}
        super().__init__(**kwargs | {"metadata": metadata | kwargs.get("metadata", {})})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if not _is_day(f"{text}-01"):
            raise ValidationError("A month is written as 2026-11.")
        return text


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _known_currency(currency: str) -> None:
    try:
        fraction_digits(currency)
    except InvalidRequest as error:
        raise ValidationError(error.detail) from None


def _validators(kwargs: dict[str, Any]) -> list[Any]:
    """Take what the caller wants validated besides out of the arguments."""
    validators = kwargs.pop("validate", None)
    if validators is None:
        return []
    return list(validators) if isinstance(validators, list | tuple) else [validators]
