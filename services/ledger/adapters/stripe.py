"""Stripe, asked by its official library over our own client of the outside; and the events that it tells by itself.

A payment is a PaymentIntent whose metadata has `order_no`. The library is imported when the first channel is asked: it
takes a second and tens of megabytes. Environment: STRIPE_API_BASE, another address than Stripe's own.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, Final

import orjson

from services.ledger.adapters.answers import Answer, Channel
from services.ledger.domain.channels import API_KEY
from services.ledger.domain.orders import check_order_no, check_upstream_ref
from services.ledger.domain.payments import PAID, PAYMENTS_MAX, Payment
from shared.addresses import AddressRefused
from shared.errors import InvalidRequest
from shared.money import AMOUNT_MINOR_MAX, fraction_digits
from shared.outbound import NoAnswer, send

API_BASE: Final = "https://api.stripe.com"
# What reading an answer that is none of Stripe's comes to, within the library and without.
UNREADABLE: Final = (ArithmeticError, AttributeError, KeyError, TypeError, ValueError, InvalidRequest)
_EXPAND: Final = "latest_charge.balance_transaction"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STATUSES: Final = {"succeeded": "success", "canceled": "failed"}
# Where Stripe counts in other units than ISO 4217 has. Source: docs.stripe.com/currencies, "Special cases".
_DIGITS_AT_STRIPE: Final = {"ISK": 2, "UGX": 2, "MGA": 0}


def ask(channel: Channel, *, order_no: str, upstream_ref: str | None, allowed: frozenset[str]) -> Answer:
    """Ask for the payments of an order: for the one whose number is known, and for all others unless that is paid."""
    import stripe

    transport = _transport_class()(allowed)
    base = os.environ.get("STRIPE_API_BASE") or API_BASE
    client = stripe.StripeClient(
        str(channel.secrets[API_KEY]), base_addresses={"api": base}, http_client=transport, max_network_retries=0
    )
    try:
        payments = _payments(client, order_no, upstream_ref)
    except stripe.InvalidRequestError as error:
        is_unknown = error.http_status == 404
        return Answer((), transport.status, transport.body, None if is_unknown else "Stripe refuses the question.")
    except (stripe.StripeError, AddressRefused, NoAnswer) as error:
        return Answer((), transport.status, transport.body, f"Stripe did not answer: {type(error).__name__}.")
    except UNREADABLE:
        return Answer((), transport.status, transport.body, "The answer cannot be read.")
    if any(payment.order_no != order_no for payment in payments):
        return Answer((), transport.status, transport.body, "The answer is about another order.")
    return Answer(payments, transport.status, transport.body)


def _payments(client: Any, order_no: str, upstream_ref: str | None) -> tuple[Payment, ...]:
    known: list[Payment] = []
    if upstream_ref is not None and upstream_ref.startswith("pi_"):
        intent = client.v1.payment_intents.retrieve(upstream_ref, {"expand": [_EXPAND]})
        known = [payment_of(intent.to_dict())]
        if known[0].status in PAID:
            return tuple(known)
    # A payment that failed says nothing of the order: another may be under way, or have been paid.
    query = f"metadata['order_no']:'{check_order_no(order_no)}'"
    found = client.v1.payment_intents.search(
        {"query": query, "limit": PAYMENTS_MAX, "expand": [f"data.{_EXPAND}"]}
    ).to_dict()
    if found["has_more"] is not False:
        raise ValueError("more payments of one order than are read")
    others = [payment_of(intent) for intent in found["data"] if intent["metadata"].get("order_no") == order_no]
    return (*known, *(other for other in others if not known or other.upstream_ref != known[0].upstream_ref))


def payment_of(intent: Mapping[str, Any]) -> Payment:
    """Return a PaymentIntent as a payment. Raises: what is in `UNREADABLE`."""
    currency = _text(intent["currency"]).upper()
    charge = intent.get("latest_charge")
    charge = charge if isinstance(charge, Mapping) else {}
    settlement = charge.get("balance_transaction")
    settlement = settlement if isinstance(settlement, Mapping) else {}
    # A fee in the currency of our account at Stripe is no fee in the payment's.
    is_same = str(settlement.get("currency", "")).upper() == currency
    status = _STATUSES.get(_text(intent["status"]), "pending")
    # What was asked for may be more than what came in: a part of it can be captured.
    amount = intent["amount_received" if status == "success" else "amount"]
    if status == "success" and charge.get("refunded") is True:
        status = "refunded"
    return Payment(
        order_no=_text(intent["metadata"].get("order_no", "")),
        upstream_ref=check_upstream_ref(_text(intent["id"])) or "",
        status=status,
        amount=_minor(amount, currency),
        fee=_minor(settlement["fee"], currency) if is_same else None,
        currency=currency,
        occurred_at=_EPOCH + timedelta(seconds=_integer(charge.get("created") or intent["created"])),
    )


def read_event(body: bytes) -> tuple[str, Payment | None]:
    """Return the id of an event that Stripe signed, and the payment that it tells of; None where that is no order's.

    Raises: InvalidRequest.
    """
    try:
        event = orjson.loads(body)
        event_id, subject = check_upstream_ref(_text(event["id"])) or "", event["data"]["object"]
        if event["object"] != "event" or subject["object"] != "payment_intent" or not _names_order(subject):
            return event_id, None
        return event_id, payment_of(subject)
    except UNREADABLE:
        raise InvalidRequest("The body is no event of Stripe's.") from None


def _names_order(intent: Mapping[str, Any]) -> bool:
    try:
        check_order_no((intent["metadata"] or {}).get("order_no"))
    except InvalidRequest:
        return False
    return True


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("not a text")
    return value


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("not an integer")
    return value


def _minor(amount: Any, currency: str) -> int:
    """Return Stripe's units as ours. Raises: TypeError, ValueError where they are none."""
    digits = fraction_digits(currency)
    units = _integer(amount)
    scaled = Decimal(units).scaleb(digits - _DIGITS_AT_STRIPE.get(currency, digits))
    if not 0 <= units <= AMOUNT_MINOR_MAX // 100 or scaled != int(scaled):
        raise ValueError(f"no amount in {currency}")
    return int(scaled)


@cache
def _transport_class() -> Any:
    """Return the library's HTTP client, over ours."""
    import stripe

    class Transport(stripe.HTTPClient):
        """Sends by `shared.outbound`, and remembers the answers as they came, a line each, and the last status."""

        name = "countinghouse"

        def __init__(self, allowed: frozenset[str]) -> None:
            super().__init__()
            self._allowed = allowed
            self.status: int | None = None
            self.body = b""

        def request(
            self,
            method: str,
            url: str,
            headers: Mapping[str, str] | None,
            post_data: Any = None,
            *,
            _usage: list[str] | None = None,
        ) -> tuple[str, int, Mapping[str, str]]:
            body = post_data.encode() if isinstance(post_data, str) else post_data
            reply = send(method.upper(), url, allowed=self._allowed, headers=headers, body=body)
            self.status, self.body = reply.status, b"\n".join(filter(None, (self.body, reply.body)))
            return reply.body.decode(errors="replace"), reply.status, reply.headers

        def close(self) -> None:
            """Nothing is kept open."""

    return Transport
