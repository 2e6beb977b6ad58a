"""Parameters as the API shows and takes them."""

from gateway.schemas import fields
from gateway.schemas.base import PageQuery, ReasonSchema, Schema

TYPES = ("string", "integer", "decimal", "boolean", "duration", "timezone", "choice")
_VALUE = {"description": "A text, a whole number, or true or false, as the parameter's type says."}


class ParameterBoundsSchema(Schema):
    """What a value keeps within; a string's bounds are of its length. What does not apply is left out."""

    minimum = fields.Raw(metadata=_VALUE)
    maximum = fields.Raw(metadata=_VALUE)
    choices = fields.List(fields.Text())


class ParameterSchema(Schema):
    """A parameter and its value in force. Version 0 is the default, which nobody has changed yet."""

    key = fields.Text(required=True)
    type = fields.Word(TYPES, required=True)
    value = fields.Raw(required=True, metadata=_VALUE)
    version = fields.Integer(required=True, at_least=0)
    default = fields.Raw(required=True, metadata=_VALUE)
    description = fields.Text(required=True)
    unit = fields.Text(required=True, allow_none=True)
    bounds = fields.Nested(ParameterBoundsSchema, required=True)
    affects = fields.List(fields.Text(), required=True, metadata={"description": "The services that read it."})
    updated_at = fields.Timestamp(required=True, allow_none=True)
    updated_by = fields.Text(required=True, allow_none=True)


class ParameterChangeSchema(ReasonSchema):
    """A new value. `expected_version` is the version that you saw."""

    value = fields.Raw(required=True, metadata=_VALUE)
    expected_version = fields.Integer(required=True, at_least=0)


class ParameterValueSchema(Schema):
    """A value to try."""

    value = fields.Raw(required=True, metadata=_VALUE)


class ParameterPreviewSchema(Schema):
    """What a change would do. `affects` is empty where nothing would change."""

    key = fields.Text(required=True)
    is_valid = fields.Boolean(required=True)
    errors = fields.List(fields.Text(), required=True)
    is_change = fields.Boolean(required=True)
    current = fields.Raw(required=True, metadata=_VALUE)
    proposed = fields.Raw(required=True, allow_none=True)
    affects = fields.List(fields.Text(), required=True)


class ParameterVersionSchema(Schema):
    """One version: what, who, when and why. Version 0, the default, was nobody's."""

    key = fields.Text(required=True)
    version = fields.Integer(required=True, at_least=0)
    value = fields.Raw(required=True, metadata=_VALUE)
    previous_value = fields.Raw(required=True, allow_none=True, metadata=_VALUE)
    reason = fields.Text(required=True)
    actor_id = fields.Text(required=True, allow_none=True)
    actor_name = fields.Text(required=True, allow_none=True)
    created_at = fields.Timestamp(required=True, allow_none=True)


class RollBackSchema(ReasonSchema):
    """Which version to go back to. Without `expected_version`, from whichever is in force."""

    version = fields.Integer(required=True, at_least=0)
    expected_version = fields.Integer(at_least=0)


class ParameterQuery(PageQuery):
    """Which page."""
