"""Files too large to hold: read off the request a piece at a time, as the body itself or as the one file of a form."""

from collections.abc import Callable, Iterator
from typing import IO, Any

from flask import request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType
from werkzeug.sansio import multipart

from gateway.terms import View, declare
from shared.errors import InvalidRequest
from shared.masking import mask_text

READ_BYTES = 64 * 1024
FORM = "multipart/form-data"
_FORM_PARTS_MAX = 2  # a second one is refused by its name


def takes_file(blueprint: Any, *, content_types: tuple[str, ...]) -> Callable[[View], View]:
    """Let a route take a file, as a body of one of these types or as the field `file` of a form."""
    form = {"type": "object", "required": ["file"], "properties": {"file": {"type": "string", "format": "binary"}}}
    content: dict[str, Any] = {name: {"schema": {"type": "string", "format": "binary"}} for name in content_types}
    document = blueprint.doc(requestBody={"required": True, "content": content | {FORM: {"schema": form}}})

    def decorator(view: View) -> View:
        documented: View = document(view)
        return declare(documented, takes_body=True)

    return decorator


class SentFile:
    """The file that was sent. `filename` is known once the first piece has been read, if the form names it."""

    def __init__(self, *, content_types: tuple[str, ...]) -> None:
        """Look at what is sent. Raises: UnsupportedMediaType, RequestEntityTooLarge."""
        if request.mimetype not in (*content_types, FORM):
            raise UnsupportedMediaType(f"Send one of {', '.join((*content_types, FORM))}.")
        self.filename: str | None = None
        self._stream: IO[bytes] = request.stream

    def pieces(self, size_bytes: int) -> Iterator[bytes]:
        """Return the file in pieces of this size, the last one smaller.

        Raises: RequestEntityTooLarge; BadRequest for a form that is none; InvalidRequest for a form with other fields.
        """
        held = bytearray()
        for data in self._of_form() if request.mimetype == FORM else self._read():
            held += data
            while len(held) >= size_bytes:
                yield bytes(held[:size_bytes])
                del held[:size_bytes]
        if held:
            yield bytes(held)

    def _read(self) -> Iterator[bytes]:
        read = 0
        while data := self._stream.read(READ_BYTES):
            read += len(data)
            # A body without a length is cut off at the limit, and nobody says so.
            if request.content_length is None and read >= (request.max_content_length or 0):
                raise RequestEntityTooLarge
            yield data

    def _of_form(self) -> Iterator[bytes]:
        boundary = request.mimetype_params.get("boundary", "").encode("latin-1", "replace")
        if not boundary:
            raise BadRequest("The form has no boundary.")
        decoder = multipart.MultipartDecoder(boundary, max_form_memory_size=READ_BYTES * 4, max_parts=_FORM_PARTS_MAX)
        files = 0
        reading: Iterator[bytes | None] = self._read()
        while not isinstance(event := _next_event(decoder), multipart.Epilogue):
            if isinstance(event, multipart.NeedData):
                decoder.receive_data(next(reading, None))
            elif isinstance(event, multipart.File) and event.name == "file" and not files:
                files += 1
                self.filename = event.filename or None
            elif isinstance(event, multipart.File | multipart.Field):
                name = mask_text(str(event.name))
                raise InvalidRequest.of_field(name, "Send one file, in the field `file`, and nothing else.")
            elif isinstance(event, multipart.Data):
                yield bytes(event.data)
        if not files:
            raise InvalidRequest.of_field("file", "Missing data for required field.")


def _next_event(decoder: multipart.MultipartDecoder) -> multipart.Event:
    try:
        return decoder.next_event()
    except ValueError:
        raise BadRequest("The body is not the form that its type says.") from None
