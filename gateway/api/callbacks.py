"""What payment platforms say. Callbacks are open to everybody: the ledger, which has the secrets, checks who signed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import request
from werkzeug.exceptions import BadRequest

from gateway.blueprint import Blueprint
from gateway.context import context
from gateway.failures import Failures
from gateway.paging import Listing, listing
from gateway.parsing import body_of
from gateway.rpc import call
from gateway.schemas.channels import CallbackSchema, ChannelQuery, PaymentSchema, UpstreamAnswerSchema
from gateway.terms import View, declare, needs, public, within
from shared.contracts.channels import CALLBACK_BYTES_MAX, CallbackRefused, CallbackTooLarge
from shared.errors import RateLimited

SIGNATURE_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature", "stripe-signature")
AT_ONCE_MAX = 16  # the rest of a crowd waits here, where waiting is cheap, and leaves the ledger to others
WAIT_SECONDS_MAX = 5.0
DEADLINE_SECONDS = 25.0  # a platform that is asked may take eight, and its turn may come after another's
HEADER_LENGTH_MAX = 1000

blueprint = Blueprint("callbacks", __name__, description="What payment platforms tell, and what they answer.")
_door = threading.BoundedSemaphore(AT_ONCE_MAX)
_refused = Failures()


@contextmanager
def _through_the_door() -> Iterator[None]:
    """Let a bounded number in at once, and nobody who was refused again and again. Raises: RateLimited."""
    place = context().ip
    seconds = _refused.seconds_to_wait(place)
    if seconds:
        raise RateLimited("Too many callbacks from here bore no good signature.", retry_after_seconds=seconds)
    if not _door.acquire(timeout=min(context().seconds_left(), WAIT_SECONDS_MAX)):
        raise RateLimited("Too many callbacks at once.", retry_after_seconds=WAIT_SECONDS_MAX)
    try:
        yield
    except CallbackRefused:
        _refused.add(place)
        raise
    finally:
        _door.release()


def _body() -> str:
    if (request.content_length or 0) > CALLBACK_BYTES_MAX:
        raise CallbackTooLarge
    body = body_of(request)
    if len(body) > CALLBACK_BYTES_MAX:  # it did not say how long it is
        raise CallbackTooLarge
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise BadRequest("The body is not UTF-8.") from None


def _takes_signed_body(view: View) -> View:
    """Document the body and the headers that sign it; it is passed on as it came, since that is what is signed."""
    headers = [
        {"in": "header", "name": name, "schema": {"type": "string", "maxLength": HEADER_LENGTH_MAX}}
        for name in SIGNATURE_HEADERS
    ]
    body = {"required": True, "content": {"application/json": {"schema": PaymentSchema}}}
    documented: View = blueprint.doc(parameters=headers, requestBody=body)(view)
    return declare(documented, takes_body=True)


@blueprint.post("/channels/<code>/callbacks")
@public
@within(seconds=DEADLINE_SECONDS)
@_takes_signed_body
@blueprint.response(200, CallbackSchema)
def receive_callback(code: str) -> Any:
    """Take a payment platform's word on a payment; delivered again, the same answer.

    It is signed per Standard Webhooks in the first three headers. A channel of kind `stripe` takes Stripe's own events
    too, in whose place `stripe-signature` stands.
    """
    headers = {name: request.headers.get(name, "")[:HEADER_LENGTH_MAX] for name in SIGNATURE_HEADERS}
    with _through_the_door():
        return call("ledger", "receive_callback", code=code, headers=headers, body=_body())


@blueprint.get("/orders/<order_no>/upstream-answers")
@needs("orders:read")
@blueprint.arguments(ChannelQuery, location="query")
@blueprint.listing(UpstreamAnswerSchema)
def list_upstream_answers(query: dict[str, Any], order_no: str) -> Listing:
    """List what the platform answered when it was asked about an order, newest first, as it came."""
    return listing("ledger", "list_upstream_answers", order_no=order_no, **query)
