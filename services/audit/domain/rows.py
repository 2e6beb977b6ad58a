"""What the log says of an event: one row or several, cut to size and cleaned. Pure.

Nothing an event holds may keep it out of the log: text that PostgreSQL cannot store is mended, text that no index
holds is cut.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, TypedDict

from shared.contracts.audit import LogType, Outcome
from shared.contracts.gateway import ApiCalled
from shared.contracts.ledger import BalancesChanged
from shared.contracts.system import SystemErrorOccurred
from shared.masking import mask_text
from shared.times import parse_rfc3339, rfc3339, utc_now

KEY_LENGTH_MAX = 200  # of what is indexed: ids, names, actions
MESSAGE_LENGTH_MAX = 500
USER_AGENT_LENGTH_MAX = 300
DETAIL_LENGTH_MAX = 2_000  # of each text inside changes and details
DETAIL_ITEMS_MAX = 1_000  # of each list inside changes and details

# What people call things, in the order in which an event's field is taken for its name.
_NAMES: Final = ("number_masked", "username", "code", "name", "key", "title", "task", "order_no")
_REFUSED_ENTRY: Final = frozenset({"SignInFailed", "RefreshTokenReused"})
_FREE_TEXTS: Final = frozenset({"note", "message", "detail", "error", "traceback", "title", "description"})
_masked: Final = lru_cache(maxsize=4096)(mask_text)  # user agents and reasons come again and again
_SAID_ELSEWHERE: Final = frozenset({"changes", "reason", "merchant_id"})
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


class LogContent(TypedDict):
    """What the hash of a row covers, besides the hash before it. `time` is RFC 3339 in UTC."""

    seq: int
    event_id: str
    part: int
    log_type: LogType
    time: str
    actor_id: str | None
    actor_name: str | None
    actor_type: str | None
    action: str
    resource_type: str | None
    resource_id: str | None
    order_no: str | None
    merchant_id: str | None
    service: str
    event: str
    ip: str | None
    user_agent: str | None
    request_id: str | None
    outcome: Outcome
    status: int | None
    duration_ms: int | None
    message: str
    reason: str | None
    changes: dict[str, Any] | None
    details: dict[str, Any] | None


def contents_of(envelope: Mapping[str, Any]) -> list[LogContent]:
    """Return the rows that an event makes, in a fixed order, so that the same event makes the same rows again.

    gateway.ApiCalled makes an api_call, any SystemErrorOccurred a system_error, ledger.BalancesChanged an operation
    for each entry, every other event an operation, and a data_change besides when it carries `changes`.
    `seq` is 0 until the row is sealed.
    """
    payload = envelope.get("payload") or {}
    match envelope.get("service"), envelope.get("event"):
        case ApiCalled.service, ApiCalled.__name__:
            return [_api_call(envelope, payload)]
        case _, SystemErrorOccurred.__name__:
            return [_system_error(envelope, payload)]
        case BalancesChanged.service, BalancesChanged.__name__:
            return _balance_changes(envelope, payload) or _operation(envelope, payload)
        case _:
            return _operation(envelope, payload)


def _common(envelope: Mapping[str, Any], payload: Mapping[str, Any]) -> LogContent:
    actor = envelope.get("actor") or {}
    return {
        "seq": 0,
        "event_id": _key(envelope.get("event_id")) or "",
        "part": 0,
        "log_type": "operation",
        "time": instant_of(envelope),
        "actor_id": _key(actor.get("id")),
        "actor_name": _key(actor.get("name")),
        "actor_type": _key(actor.get("type")),
        "action": _key(envelope.get("action")) or f"{envelope.get('service')}.{envelope.get('event')}"[:KEY_LENGTH_MAX],
        "resource_type": _key(envelope.get("resource_type")),
        "resource_id": _key(envelope.get("resource_id")),
        "order_no": _key(payload.get("order_no")),
        "merchant_id": _key(envelope.get("merchant_id")),
        "service": _key(envelope.get("service")) or "",
        "event": _key(envelope.get("event")) or "",
        "ip": _key(envelope.get("ip")),
        "user_agent": _typed(envelope.get("user_agent"), USER_AGENT_LENGTH_MAX),
        "request_id": _key(envelope.get("request_id")),
        "outcome": "success",
        "status": None,
        "duration_ms": None,
        "message": "",
        "reason": _typed(payload.get("reason")),
        "changes": None,
        "details": None,
    }


def _operation(envelope: Mapping[str, Any], payload: Mapping[str, Any]) -> list[LogContent]:
    operation = _common(envelope, payload)
    operation["outcome"] = _outcome_of_event(operation["event"])
    operation["message"] = _sentence(operation["event"], payload)
    operation["details"] = _details(payload)
    changes = payload.get("changes")
    if not isinstance(changes, dict) or not changes:
        return [operation]
    operation["changes"] = stored(changes, is_free_text=True)
    changed = operation.copy()
    changed["part"] = 1
    changed["log_type"] = "data_change"
    changed["details"] = None
    changed["message"] = _cut(f"{operation['message']} ({', '.join(sorted(map(str, changes)))})")
    return [operation, changed]


def _api_call(envelope: Mapping[str, Any], payload: Mapping[str, Any]) -> LogContent:
    row = _common(envelope, payload)
    status = _whole(payload.get("status"))
    row["log_type"] = "api_call"
    row["status"] = status
    row["outcome"] = outcome_of(status)
    row["duration_ms"] = _whole(payload.get("duration_ms"))
    # The route and not the path: what differs between two calls stands in resource_id, which has its own index, and
    # random ids cost the trigrams more than all else together.
    row["message"] = _cut(f"{payload.get('method')} {payload.get('route') or payload.get('path')} → {status}")
    row["details"] = _details(payload)
    return row


def _system_error(envelope: Mapping[str, Any], payload: Mapping[str, Any]) -> LogContent:
    row = _common(envelope, payload)
    call = f": {payload['method']} {payload.get('path')}" if payload.get("method") else ""
    row["log_type"] = "system_error"
    row["outcome"] = "failed"
    row["status"] = _whole(payload.get("status"))
    row["duration_ms"] = _whole(payload.get("duration_ms"))
    row["message"] = _typed(f"{payload.get('error') or 'System error'}{call}") or ""
    row["details"] = _details(payload)
    return row


def _balance_changes(envelope: Mapping[str, Any], payload: Mapping[str, Any]) -> list[LogContent]:
    event = _common(envelope, payload)
    rows = []
    entries = payload.get("entries")
    for part, entry in enumerate(entries if isinstance(entries, list) else ()):
        if not isinstance(entry, dict):
            continue
        row = event.copy()
        row["part"] = part
        row["resource_id"] = _key(entry.get("entry_id"))
        row["order_no"] = _key(entry.get("order_no"))
        row["merchant_id"] = _key(entry.get("merchant_id")) or event["merchant_id"]
        row["reason"] = _typed(entry.get("reason"))
        row["message"] = _cut(
            f"{entry.get('type_name')} of {entry.get('holder_type')} {entry.get('holder_id')}: "
            f"{entry.get('amount')} {entry.get('currency')}, balance {entry.get('balance')}"
        )
        row["details"] = _details(entry)
        rows.append(row)
    return rows


def outcome_of(status: int | None) -> Outcome:
    """Return what an HTTP status says of a call: denied is 401 and 403, refused any other 4xx."""
    if status is None or status >= 500:
        return "failed"
    if status in (401, 403):
        return "denied"
    return "refused" if status >= 400 else "success"


def _outcome_of_event(event: str) -> Outcome:
    if event in _REFUSED_ENTRY:
        return "denied"
    return "failed" if event.endswith("Failed") else "success"


def _sentence(event: str, payload: Mapping[str, Any]) -> str:
    """Return an event's name as words, with what people call the thing that it is about: `Card frozen: •••• 4242`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", event).capitalize()
    name = next((payload[field] for field in _NAMES if payload.get(field)), None)
    return words if name is None else _typed(f"{words}: {name}") or ""


def _details(payload: Mapping[str, Any]) -> dict[str, Any] | None:
    said_here = {k: v for k, v in payload.items() if k not in _SAID_ELSEWHERE and v is not None}
    return stored(said_here) or None


def instant_of(envelope: Mapping[str, Any]) -> str:
    """Return when the event happened, as RFC 3339 in UTC; now, for one whose time cannot be read."""
    try:
        return rfc3339(parse_rfc3339(envelope["occurred_at"]))
    except (KeyError, TypeError, ValueError):
        return rfc3339(utc_now())


def _typed(value: Any, length_max: int = MESSAGE_LENGTH_MAX) -> str | None:
    """Return a text that somebody outside has written, with what looks like a secret masked."""
    text = _text(value, length_max)
    return text and _masked(text)


def _cut(text: str) -> str:
    return _text(text, MESSAGE_LENGTH_MAX) or ""


def _key(value: Any) -> str | None:
    return _text(value, KEY_LENGTH_MAX)


def _text(value: Any, length_max: int) -> str | None:
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else str(value)
    if not text.isascii() or "\0" in text:
        text = _UNSTORABLE.sub("\ufffd", text)
    return text[:length_max]


def _whole(value: Any) -> int | None:
    """Return a number as an integer that the column holds; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**31:
        return None
    return round(value)


def stored(value: Any, *, is_free_text: bool = False) -> Any:
    """Return JSON whose text any language writes alike: mended and cut texts, and floats as texts.

    is_free_text: mask what looks like a secret, as in texts that people type; ids are left as they are, since one in
    ten long numbers looks like a card's.
    """
    match value:
        case str():
            text = _text(value, DETAIL_LENGTH_MAX) or ""
            return _masked(text) if is_free_text else text
        case None | bool():
            return value
        case int():
            return value if abs(value) < 2**53 else str(value)
        case dict():
            return {_key(k) or "": stored(v, is_free_text=is_free_text or k in _FREE_TEXTS) for k, v in value.items()}
        case list() | tuple():
            return [stored(v, is_free_text=is_free_text) for v in value[:DETAIL_ITEMS_MAX]]
        case _:
            return _text(value, DETAIL_LENGTH_MAX) or ""
