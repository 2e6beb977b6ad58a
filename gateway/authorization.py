"""The gate before every view: who, may they, and is the request one that the route takes."""

import re

from flask import Flask, current_app, request
from werkzeug.exceptions import NotFound as NoSuchRoute

from gateway import parsing
from gateway.authentication import Authenticator
from gateway.context import context
from gateway.errors import IdempotencyKeyRequired, InvalidIdempotencyKey, PasswordChangeRequired
from gateway.terms import Terms, terms_of
from shared.errors import PermissionDenied

EXTENSION = "countinghouse-authenticator"
WRITING_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_SANE_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def install(app: Flask, authenticator: Authenticator) -> None:
    """Put the gate before every view of the app."""
    app.extensions[EXTENSION] = authenticator
    app.before_request(admit)


def admit() -> None:
    """Check the request against the terms of its route.

    Raises, in order: Unauthenticated, PasswordChangeRequired, PermissionDenied, IdempotencyKeyRequired, the
    refusals of a body that the route does not take.
    """
    if "\x00" in request.path:
        raise NoSuchRoute
    view = current_app.view_functions.get(request.endpoint or "")
    if view is None or request.routing_exception is not None or request.method == "OPTIONS":
        return
    current = context()
    current.terms = terms = terms_of(view)
    current.renew_deadline()
    request.max_content_length = terms.body_bytes_max
    if request.content_length is not None:
        # gunicorn ends the body of a sender who is gone as if it were whole; its length tells werkzeug that it is not.
        request.environ.pop("wsgi.input_terminated", None)
    if not terms.is_public:
        check_again()
    _take_idempotency_key(terms)
    if request.method in WRITING_METHODS and not terms.takes_body:
        parsing.refuse_body(request)


def check_again() -> None:
    """Check who calls and whether they may, by what the users service says now.

    Raises, in order: Unauthenticated, PasswordChangeRequired, PermissionDenied.
    """
    current = context()
    authenticator: Authenticator = current_app.extensions[EXTENSION]
    caller = current.caller = authenticator.caller_of(
        request.headers.get("Authorization"), timeout_seconds=current.seconds_left()
    )
    if caller.must_change_password and not current.terms.is_open_to_expired_password:
        raise PasswordChangeRequired
    needed = current.terms.permission
    if needed is not None and not caller.may(needed):
        raise PermissionDenied(f"This needs the permission {needed}.", missing=needed)


def ask_again() -> None:
    """Let what was just changed in users hold from the very next request, in place of within seconds.

    Other gateway processes hear of it when their own knowledge has aged (STATE_FRESH_SECONDS).
    """
    authenticator: Authenticator = current_app.extensions[EXTENSION]
    authenticator.ask_again()


def _take_idempotency_key(terms: Terms) -> None:
    # Keys belong to their caller, and on a public route there is none whom we know.
    if request.method not in WRITING_METHODS or terms.is_public:
        return
    key = request.headers.get("Idempotency-Key")
    if key is None:
        if terms.moves_money:
            raise IdempotencyKeyRequired.of_field("Idempotency-Key", IdempotencyKeyRequired.title)
        return
    if not _SANE_IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidIdempotencyKey.of_field("Idempotency-Key", InvalidIdempotencyKey.title)
    context().idempotency_key = key
