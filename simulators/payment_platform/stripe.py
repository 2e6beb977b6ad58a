"""The account `stripe` speaks as Stripe does: its payments as PaymentIntents, its callbacks as signed events."""

import hmac
import time
from datetime import datetime
from typing import Any

import orjson

from simulators.payment_platform.state import Payment

STRIPE_ACCOUNT = "stripe"
ZERO_DECIMAL = ("JPY", "KRW")
_STATUSES = {"success": "succeeded", "refunded": "succeeded", "failed": "canceled", "pending": "processing"}


def intent_of(payment: Payment) -> dict[str, Any]:
    """Return a payment as a PaymentIntent."""
    at = int(datetime.fromisoformat(payment.time).timestamp())
    settlement = {
        "id": f"txn_{payment.upstream_ref}", "object": "balance_transaction",
        "fee": _units(payment.fee, payment.currency), "currency": payment.currency.lower(),
    }  # fmt: skip
    charge = {
        "id": f"ch_{payment.upstream_ref}", "object": "charge", "created": at,
        "refunded": payment.status == "refunded", "balance_transaction": settlement,
    }  # fmt: skip
    units = _units(payment.amount, payment.currency)
    return {
        "id": payment.upstream_ref, "object": "payment_intent", "amount": units,
        "amount_received": units if payment.status in ("success", "refunded") else 0,
        "currency": payment.currency.lower(), "status": _STATUSES[payment.status], "created": at,
        "metadata": {"order_no": payment.order_no or ""}, "latest_charge": charge,
    }  # fmt: skip


def _units(amount: str, currency: str) -> int:
    whole, _, fraction = amount.partition(".")
    return int(whole) if currency in ZERO_DECIMAL else int(whole + fraction.ljust(2, "0"))


def event_of(payment: Payment, event_id: str) -> bytes:
    """Return the event that tells of a payment, in which its charge is only named."""
    intent = intent_of(payment)
    content = {
        "id": event_id, "object": "event", "created": int(time.time()), "livemode": False,
        "type": f"payment_intent.{intent['status']}",
        "data": {"object": intent | {"latest_charge": intent["latest_charge"]["id"]}},
    }  # fmt: skip
    return orjson.dumps(content)


def sign_event(secret: str, body: bytes) -> dict[str, str]:
    """Return the header that signs an event, in Stripe's way."""
    now = str(int(time.time()))
    return {"Stripe-Signature": f"t={now},v1={hmac.digest(secret.encode(), f'{now}.'.encode() + body, 'sha256').hex()}"}
