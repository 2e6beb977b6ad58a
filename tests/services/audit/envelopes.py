"""Envelopes as they come over the bus."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from shared.events import Envelope
from shared.times import rfc3339, utc_now

AURORA, BOREALIS = "mer_aurora", "mer_borealis"

_numbers = count(1)


def envelope(event: str = "CardFrozen", service: str = "cards", **fields: Any) -> Envelope:
    """Return an envelope; what is not said is filled in. `payload` takes the event's fields."""
    number = next(_numbers)
    actor = fields.pop("actor", "Alice")
    occurred_at = fields.pop("at", utc_now() - timedelta(minutes=1))
    made: dict[str, Any] = {
        "event_id": f"{number:032x}",
        "event": event,
        "service": service,
        "occurred_at": rfc3339(occurred_at) if isinstance(occurred_at, datetime) else occurred_at,
        "request_id": f"req_{number}",
        "actor": {"id": f"usr_{actor.lower()}", "name": actor, "type": "user"},
        "ip": "192.0.2.7",
        "user_agent": "tests",
        "action": f"{service}.freeze_card",
        "resource_type": "card",
        "resource_id": f"card_{number}",
        "merchant_id": AURORA,
        "payload": {},
    }
    return made | fields  # type: ignore[return-value]


def api_call(status: int = 200, **fields: Any) -> Envelope:
    """Return the envelope of a call of the API."""
    payload = {
        "method": "GET",
        "route": "/api/v1/cards/{card_id}",
        "path": "/api/v1/cards/card_1",
        "status": status,
        "duration_ms": 12.6,
        "outcome": "success",
        "code": None,
    }
    return envelope(
        "ApiCalled", "gateway", payload=payload, **{"action": "cards.get_card", "merchant_id": None} | fields
    )


def entry(number: int, **fields: Any) -> dict[str, Any]:
    """Return a balance log entry as the ledger tells it."""
    made = {
        "entry_id": f"ent_{number}",
        "user_id": f"u{number}",
        "holder_type": "user",
        "holder_id": f"u{number}",
        "merchant_id": AURORA,
        "amount": "-12.50",
        "currency": "CNY",
        "order_no": f"P2026{number:06}",
        "balance": "100.00",
        "version": 3,
        "type": 331,
        "type_name": "Purchase",
        "group": "Purchase",
        "time": "2026-11-22T09:30:00Z",
        "operator": None,
        "channel": None,
        "note": None,
        "reason": None,
    }
    return made | fields


def balances_changed(entries: list[dict[str, Any]], **fields: Any) -> Envelope:
    """Return the envelope of entries that the ledger posted."""
    said: dict[str, Any] = {
        "action": "ledger.post_changes",
        "resource_type": "entry",
        "resource_id": entries[0]["entry_id"],
        "payload": {"entries": entries, "merchant_id": AURORA},
    }
    return envelope("BalancesChanged", "ledger", **said | fields)


def some_day(day: int, hour: int = 12) -> datetime:
    """Return an instant of November 2026."""
    return datetime(2026, 11, day, hour, tzinfo=UTC)
