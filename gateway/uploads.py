"""Files that are sent to be taken in: as the body itself, or as the one file of a form."""

from collections.abc import Callable
from typing import Any

from flask import request
from werkzeug.exceptions import UnsupportedMediaType

from gateway.parsing import body_of
from gateway.terms import View, declare
from shared.errors import InvalidRequest

CSV = "text/csv"
FORM = "multipart/form-data"


def takes_csv(blueprint: Any, *, example: str) -> Callable[[View], View]:
    """Let a route take CSV, as `text/csv` or as the field `file` of a form; `csv_text()` reads it."""
    form = {"type": "object", "required": ["file"], "properties": {"file": {"type": "string", "format": "binary"}}}
    document = blueprint.doc(
        requestBody={
            "required": True,
            "content": {CSV: {"schema": {"type": "string"}, "example": example}, FORM: {"schema": form}},
        }
    )

    def decorator(view: View) -> View:
        documented: View = document(view)
        return declare(documented, takes_body=True)

    return decorator


def csv_text() -> str:
    """Return the text of the CSV that was sent. Raises: UnsupportedMediaType, RequestEntityTooLarge, InvalidRequest."""
    if request.mimetype == CSV:
        content = body_of(request)
    elif request.mimetype == FORM:
        files = request.files.getlist("file")
        if len(files) != 1 or len(list(request.files.items(multi=True))) != 1 or request.form:
            raise InvalidRequest.of_field("file", "Send one file, in the field `file`.")
        content = files[0].read()
    else:
        raise UnsupportedMediaType(f"Send {CSV} or {FORM}.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequest.of_field("file", "The file is not UTF-8.") from None
    if "\0" in text:
        raise InvalidRequest.of_field("file", "NUL is not allowed.")
    return text
