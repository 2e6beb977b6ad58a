"""Stripe's own events, signed in Stripe's way: checked by its library, asked for at Stripe before money is credited.

Stripe is the simulated platform's account `stripe`, over real HTTP.
"""

import secrets
import time
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import orjson
import pytest
import stripe
from flask import Flask, request

from services.ledger.signatures import STRIPE_HEADER, STRIPE_TOLERANCE_SECONDS
from services.ledger.usecases import callbacks
from shared.contracts.channels import CallbackRefused, ChannelUnreachable, InvalidChannelConfig
from shared.errors import InvalidRequest
from simulators.payment_platform import RunningPlatform, running_platform
from simulators.serving import Serving
from tests.services.ledger.channels import CIPHER, register
from tests.services.ledger.platform import payment as said_of
from tests.services.ledger.platform import signed
from tests.services.ledger.test_callbacks import CallbackBooks, books

__all__ = ["books"]  # the fixtures

SECRET, OTHER = "whsec_" + "Xz4" * 11, "whsec_" + "0f" * 32
CHANNEL = "cards-abroad"


@pytest.fixture
def platform(books: CallbackBooks, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningPlatform]:
    """Stripe, and a channel of it."""
    with running_platform() as running:
        monkeypatch.setenv("STRIPE_API_BASE", running.url)
        books.allowed = frozenset({running.place})
        config = {"api_key": running.secret, "callback_secrets": [SECRET, OTHER]}
        books.run(lambda session: register(session, CHANNEL, kind="stripe", config=config))
        yield running


def event(order_no: str | None, *, type: str = "payment_intent.succeeded", **fields: Any) -> dict[str, Any]:
    """Return an event about a payment of 10.00 USD, its PaymentIntent put differently by fields."""
    intent = {
        "id": "pi_1", "object": "payment_intent", "amount": 1000, "amount_received": 1000, "currency": "usd",
        "status": "succeeded", "created": 1763971200, "metadata": {"order_no": order_no}, "latest_charge": "ch_1",
    } | fields  # fmt: skip
    return {"id": f"evt_{secrets.token_hex(8)}", "object": "event", "type": type, "data": {"object": intent}}


def receive(books: CallbackBooks, content: Any, *, code: str = CHANNEL, header: str | None = None, **how: Any) -> Any:
    body = content if isinstance(content, str) else orjson.dumps(content).decode()
    if header is None:
        at = int(time.time()) + how.get("ahead", 0)
        header = stripe.WebhookSignature.generate_signature_header(body, how.get("secret", SECRET), at)
    headers = {STRIPE_HEADER: header, "webhook-id": "", "webhook-timestamp": "", "webhook-signature": ""}
    return callbacks.receive_callback(books, CIPHER, code=code, headers=headers, body=body, allowed=books.allowed)


def order(books: CallbackBooks) -> str:
    return books.order(channel=CHANNEL, currency="USD")


def pay(platform: RunningPlatform, number: str, amount: str = "10.00", **fields: Any) -> None:
    platform.make_payment("stripe", number, amount, **{"currency": "USD", "upstream_ref": "pi_1"} | fields)


def test_event_settles_its_order_after_stripe_was_asked(books: CallbackBooks, platform: RunningPlatform) -> None:
    number = order(books)
    pay(platform, number, fee="0.59")
    told = event(number)
    answer = receive(books, told)
    assert answer == {"outcome": "settled", "order_no": number, "upstream_ref": "pi_1"}
    assert books.rows("select upstream_ref, amount, fee, source from upstream_records") == [("pi_1", 1000, 59, "query")]
    assert books.rows("select webhook_id, outcome from callbacks") == [(told["id"], "settled")]
    assert receive(books, told) == answer
    assert receive(books, event(number))["outcome"] == "already"
    assert books.rows("select count(*) from entries") == [(1,)]
    assert books.rows("select count(*) from upstream_answers") == [(1,)]


def test_forged_event_credits_nothing_where_stripe_denies(books: CallbackBooks, platform: RunningPlatform) -> None:
    number = order(books)
    pay(platform, number, status="pending")
    assert receive(books, event(number))["outcome"] == "not_confirmed"
    assert receive(books, event(number, id="pi_unknown"))["outcome"] == "not_confirmed"
    assert books.status(number) == "pending"


def test_event_is_taken_again_when_stripe_did_not_answer(books: CallbackBooks, platform: RunningPlatform) -> None:
    number = order(books)
    pay(platform, number)
    platform.order_fault("server_error", "query")
    told = event(number)
    with pytest.raises(ChannelUnreachable):
        receive(books, told)
    assert receive(books, told)["outcome"] == "settled"


def test_attempt_that_was_canceled_fails_no_order_that_another_paid(
    books: CallbackBooks, platform: RunningPlatform
) -> None:
    number = order(books)
    pay(platform, number, status="failed")
    pay(platform, number, upstream_ref="pi_2")
    canceled = event(number, type="payment_intent.canceled", status="canceled", amount_received=0)
    assert receive(books, canceled)["outcome"] == "settled"
    assert books.rows("select upstream_ref from orders") == [("pi_2",)]


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"amount_received": 999}, "mismatched"),
        ({"currency": "eur"}, "mismatched"),
        ({"status": "processing"}, "noted"),
        ({"metadata": {"order_no": "nobody"}}, "unknown_order"),
    ],
)
def test_event_is_compared_with_the_order(
    books: CallbackBooks, platform: RunningPlatform, fields: dict[str, Any], outcome: str
) -> None:
    number = order(books)
    pay(platform, number)
    assert receive(books, event(number, **fields))["outcome"] == outcome
    assert (books.status(number), len(books.records())) == ("pending", 1)


@pytest.mark.parametrize(
    "told",
    [
        event("x", type="charge.succeeded", object="charge"),
        event(None),
        event("x", metadata=None),
        event("x", metadata={}),
        event("x", metadata={"order_no": "a/b\0"}),
    ],
)
def test_event_about_no_orders_payment_is_taken_and_ignored(
    books: CallbackBooks, platform: RunningPlatform, told: Any
) -> None:
    assert receive(books, told) == {"outcome": "ignored", "order_no": None, "upstream_ref": None}
    assert (books.records(), books.rows("select * from callbacks")) == ([], [])


@pytest.mark.parametrize(
    "content",
    [
        "not json", "[]", "null", "{}", '{"id": 1}', event("x") | {"id": "evt 1"}, event("x") | {"data": None},
        event("x", amount_received=10.5), event("x", amount_received=10**19),
        event("x", amount_received="1000"),
        event("x", currency="xxq"), event("x", id="pi 1"), event("x", created=10**17),
    ],
)  # fmt: skip
def test_signed_event_that_cannot_be_read_is_invalid(
    books: CallbackBooks, platform: RunningPlatform, content: Any
) -> None:
    with pytest.raises(InvalidRequest):
        receive(books, content)
    assert books.records() == []


def test_secret_of_stripe_is_changed_without_a_gap(books: CallbackBooks, platform: RunningPlatform) -> None:
    number = order(books)
    pay(platform, number)
    body = orjson.dumps(event(number)).decode()
    now = int(time.time())
    both = [stripe.WebhookSignature.generate_signature_header(body, secret, now) for secret in ("whsec_gone", OTHER)]
    assert receive(books, body, header=f"{both[0]},{both[1].partition(',')[2]}")["outcome"] == "settled"


@pytest.mark.parametrize(
    "how",
    [
        {"secret": "whsec_" + "q" * 32},
        {"ahead": -STRIPE_TOLERANCE_SECONDS - 10},
        {"ahead": STRIPE_TOLERANCE_SECONDS + 10},
        {"code": "alipay"},
        {"code": "nobody"},
        {"header": ""},
        {"header": "t=1"},
        {"header": "v1=abc"},
        {"header": "t=now,v1=abc"},
        {"header": "t=1,t=2,v1=abc"},
        {"header": f"t={int(time.time())},v1=é"},
        {"header": f"t={int(time.time())}"},
        {"header": f"t={int(time.time())},v0={'0' * 64}"},
        {"header": "=" * 1000},
    ],
)
def test_event_that_stripe_did_not_sign_now_is_refused(
    books: CallbackBooks, platform: RunningPlatform, how: dict[str, Any]
) -> None:
    number = order(books)
    pay(platform, number)
    with pytest.raises(CallbackRefused):
        receive(books, event(number), **how)
    assert (books.status(number), books.records()) == ("pending", [])


def test_channel_of_stripe_takes_standard_webhooks_too(books: CallbackBooks, platform: RunningPlatform) -> None:
    number = order(books)
    pay(platform, number)
    headers, body = signed(said_of(number, upstream_ref="pi_1", currency="USD"), secret=OTHER)
    headers |= {STRIPE_HEADER: ""}
    answer = callbacks.receive_callback(books, CIPHER, code=CHANNEL, headers=headers, body=body, allowed=books.allowed)
    assert answer["outcome"] == "settled"


def test_platform_delivers_events_until_they_are_taken(books: CallbackBooks, platform: RunningPlatform) -> None:
    """The simulator signs by itself, so that this is no agreement of the library with itself."""
    number = books.order(channel="sealed", currency="USD")
    pay(platform, number)
    config = {"api_key": platform.secret, "callback_secrets": [platform.secret]}
    books.run(lambda session: register(session, "sealed", kind="stripe", config=config))
    app, context = Flask(__name__), copy_context()

    @app.post("/callback")
    def take() -> Any:
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = request.get_data().decode()
        how = {"code": "sealed", "headers": headers, "body": body, "allowed": books.allowed}
        try:
            return dict(context.run(lambda: callbacks.receive_callback(books, CIPHER, **how)))
        except CallbackRefused:
            return "", 401

    serving = Serving(app, "127.0.0.1", 0)
    try:
        platform.send_callbacks_to("stripe", f"http://{serving.place}/callback")
        platform.order_fault("bad_signature", "callback")
        assert platform.deliver("stripe")["statuses"] == {"401": 1}
        assert platform.deliver("stripe")["outcomes"] == {"settled": 1}
    finally:
        serving.stop()


@pytest.mark.parametrize("secret", ["whsec_short", "sk_live_" + "a" * 30, "whsec_" + "!" * 32, "", 5])
def test_secret_that_is_none_of_stripes_is_refused(books: CallbackBooks, secret: Any) -> None:
    config = {"api_key": "sk_test_" + "a" * 20, "callback_secrets": [secret]}
    with pytest.raises(InvalidChannelConfig):
        books.run(lambda session: register(session, "other", kind="stripe", config=config))


def test_other_channels_take_no_secret_that_is_no_base64(books: CallbackBooks) -> None:
    with pytest.raises(InvalidChannelConfig):
        books.run(lambda session: register(session, "other", config={"callback_secrets": ["whsec_" + "a" * 25]}))
