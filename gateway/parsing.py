"""Bodies and queries, read strictly: nothing unknown, nothing converted, one shape of error."""

from typing import Any, NoReturn

import marshmallow as ma
import orjson
from flask import Request
from webargs import core
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from gateway.context import context
from gateway.errors import CardNumberInText, TokenInText
from shared.errors import InvalidRequest
from shared.masking import mask_text

_ERROR_OF_MESSAGE = {error.title: error for error in (CardNumberInText, TokenInText)}
_NUL_CHARACTERS = (b"\\u0000", b"\x00")


class StrictParser(FlaskParser):
    """Refuses unknown fields everywhere: a misspelt filter must not widen a list."""

    DEFAULT_UNKNOWN_BY_LOCATION = {**FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION, "query": ma.RAISE, "json": ma.RAISE}

    def load_json(self, req: Request, schema: ma.Schema) -> Any:
        """Return the body's JSON, or `missing` when there is no body."""
        return json_of(req) if has_body(req) else core.missing

    def load_querystring(self, req: Request, schema: ma.Schema) -> Any:
        """Return the query. No text with a NUL can be stored, so none is taken; of two filters none is passed over."""
        if b"%00" in req.query_string:
            raise InvalidRequest("The query holds a NUL character.", errors={"query": ["NUL is not allowed."]})
        lists = {field.data_key or name for name, field in schema.fields.items() if isinstance(field, ma.fields.List)}
        for name, values in req.args.lists():
            if len(values) > 1 and name not in lists:
                raise InvalidRequest.of_field(mask_text(name), "Give it once.")
        return super().load_querystring(req, schema)

    def handle_error(self, error: ma.ValidationError, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse what does not fit its schema: 422, field to messages."""
        messages = error.messages if isinstance(error.messages, dict) else {"_schema": error.messages}
        errors = flat_messages({k: v for location in messages.values() for k, v in _as_dict(location).items()})
        # A name that nobody knows may be a secret in the wrong place, too.
        errors = {mask_text(field): texts for field, texts in errors.items()}
        field, first = next(iter(errors.items()))
        detail = f"{first[0]}" if field == "_schema" else f"{field}: {first[0]}"
        raise _ERROR_OF_MESSAGE.get(first[0], InvalidRequest)(detail, errors=errors) from None


def has_body(request: Request) -> bool:
    """Return whether the request carries a body."""
    return bool(request.content_length) or ("Transfer-Encoding" in request.headers and bool(body_of(request)))


def body_of(request: Request) -> bytes:
    """Return the body. Raises: RequestEntityTooLarge.

    Werkzeug cuts a body without a length off at the limit, and says nothing; a body that was cut off is no body.
    """
    body = request.get_data()
    if request.content_length is None and len(body) >= (request.max_content_length or 0):
        raise RequestEntityTooLarge
    return body


def json_of(request: Request) -> Any:
    """Return the JSON in the body. Raises: UnsupportedMediaType, BadRequest, InvalidRequest for a NUL in a text."""
    if not request.is_json:
        raise UnsupportedMediaType("Send application/json.")
    body = body_of(request)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error}.") from None
    if any(nul in body for nul in _NUL_CHARACTERS):
        raise InvalidRequest("The body holds a NUL character.", errors={"_schema": ["NUL is not allowed."]})
    if isinstance(value, dict) and isinstance(value.get("merchant_id"), str):
        context().merchant_id = value["merchant_id"][:64]
    return value


def refuse_body(request: Request) -> None:
    """Refuse fields sent to a route that takes none; an empty object is no field."""
    if has_body(request):
        value = json_of(request)
        if not isinstance(value, dict):
            raise InvalidRequest.of_field("_schema", "Invalid input type.")
        if value:
            raise InvalidRequest(
                "This route takes no fields.", errors={mask_text(key): ["Unknown field."] for key in value}
            )


def flat_messages(messages: dict[Any, Any], prefix: str = "") -> dict[str, list[str]]:
    """Return nested messages by dotted path: {"changes": {0: {"amount": […]}}} is {"changes.0.amount": […]}."""
    flat: dict[str, list[str]] = {}
    for key, value in messages.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= flat_messages(value, f"{path}.")
        else:
            flat[path] = [str(message) for message in (value if isinstance(value, list) else [value])]
    return flat


def _as_dict(messages: Any) -> dict[Any, Any]:
    return messages if isinstance(messages, dict) else {"_schema": messages}
