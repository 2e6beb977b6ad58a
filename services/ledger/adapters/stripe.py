"""Stripe, asked by its official library over our own client of the outside.

A payment is a PaymentIntent whose metadata has `order_no`. The library is imported when the first channel is asked: it
takes a second and tens of megabytes. Environment: STRIPE_API_BASE, another address than Stripe's own.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any, Final

from services.ledger.adapters.answers import Answer, Channel
from services.ledger.domain.channels import API_KEY
from services.ledger.domain.orders import check_order_no
from services.ledger.domain.payments import PAYMENTS_MAX, Payment
from shared.addresses import AddressRefused
from shared.errors import InvalidRequest
from shared.money import fraction_digits
from shared.outbound import NoAnswer, send

API_BASE: Final = "https://api.stripe.com"
_EXPAND: Final = "latest_charge.balance_transaction"
_STATUSES: Final = {"succeeded": "success", "canceled": "failed"}
# Where Stripe counts in other units than ISO 4217 has. Source: docs.stripe.com/currencies, "Special cases".
_DIGITS_AT_STRIPE: Final = {"ISK": 2, "UGX": 2, "MGA": 0}


def ask(channel: Channel, *, order_no: str, upstream_ref: str | None, allowed: frozenset[str]) -> Answer:
    """Ask for the payments of an order: by Stripe's number where we know it, else by the order's in its metadata."""
    import stripe

    transport = _transport_class()(allowed)
    base = os.environ.get("STRIPE_API_BASE") or API_BASE
    client = stripe.StripeClient(
        str(channel.secrets[API_KEY]), base_addresses={"api": base}, http_client=transport, max_network_retries=0
    )
    try:
        if upstream_ref is not None and upstream_ref.startswith("pi_"):
            intents = [client.v1.payment_intents.retrieve(upstream_ref, {"expand": [_EXPAND]})]
        else:
            query = f"metadata['order_no']:'{check_order_no(order_no)}'"
            found = client.v1.payment_intents.search(
                {"query": query, "limit": PAYMENTS_MAX, "expand": [f"data.{_EXPAND}"]}
            )
            intents = list(found.data)
        payments = tuple(payment_of(intent.to_dict()) for intent in intents)
    except stripe.InvalidRequestError as error:
        is_unknown = error.http_status == 404
        return Answer((), transport.status, transport.body, None if is_unknown else "Stripe refuses the question.")
    except (stripe.StripeError, AddressRefused, NoAnswer) as error:
        return Answer((), transport.status, transport.body, f"Stripe did not answer: {type(error).__name__}.")
    except (KeyError, TypeError, ValueError, InvalidRequest):
        return Answer((), transport.status, transport.body, "The answer cannot be read.")
    if any(payment.order_no != order_no for payment in payments):
        return Answer((), transport.status, transport.body, "The answer is about another order.")
    return Answer(payments, transport.status, transport.body)


def payment_of(intent: Mapping[str, Any]) -> Payment:
    """Return a PaymentIntent as a payment. Raises: KeyError, TypeError, ValueError, InvalidRequest."""
    currency = str(intent["currency"]).upper()
    charge = intent.get("latest_charge")
    charge = charge if isinstance(charge, Mapping) else {}
    settlement = charge.get("balance_transaction")
    # A fee in the currency of our account at Stripe is no fee in the payment's.
    is_same = isinstance(settlement, Mapping) and str(settlement.get("currency", "")).upper() == currency
    status = _STATUSES.get(intent["status"], "pending")
    if status == "success" and charge.get("refunded"):
        status = "refunded"
    return Payment(
        order_no=str(intent["metadata"].get("order_no", "")),
        upstream_ref=str(intent["id"]),
        status=status,
        amount=_minor(intent["amount"], currency),
        fee=_minor(settlement["fee"], currency) if is_same and isinstance(settlement, Mapping) else None,
        currency=currency,
        occurred_at=datetime.fromtimestamp(int(charge.get("created") or intent["created"]), UTC),
    )


def _minor(amount: int, currency: str) -> int:
    """Return Stripe's units as ours. Raises: ValueError where they are none."""
    digits = fraction_digits(currency)
    scaled = Decimal(int(amount)).scaleb(digits - _DIGITS_AT_STRIPE.get(currency, digits))
    if scaled != int(scaled):
        raise ValueError(f"{amount} is no amount in {currency}")
    return int(scaled)


@cache
def _transport_class() -> Any:
    """Return the library's HTTP client, over ours."""
    import stripe

    class Transport(stripe.HTTPClient):
        """Sends by `shared.outbound`, and remembers the last answer as it came."""

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
            self.status, self.body = reply.status, reply.body
            return reply.body.decode(errors="replace"), reply.status, reply.headers

        def close(self) -> None:
            """Nothing is kept open."""

    return Transport
