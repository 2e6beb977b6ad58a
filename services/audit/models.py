"""The audit service's tables: log rows, partitioned by month, and the head of their hash chain.

Rows are written by COPY and read by SQL, as they are many: a row's columns stand here once, its table in
`migrations/`.
"""

from typing import Any, Final

import orjson
from sqlalchemy import RowMapping

from services.audit.domain.chain import Link, log_id
from services.audit.domain.rows import LogContent
from shared.contracts.audit import LogView
from shared.times import rfc3339

COLUMNS: Final = (*LogContent.__annotations__, "prev_hash", "hash")
_JSON_COLUMNS: Final = frozenset({"changes", "details"})

# JSON is read back as the text that was written, since the hash covers it.
SELECTED: Final = ", ".join(f"l.{c}::text as {c}" if c in _JSON_COLUMNS else f"l.{c}" for c in COLUMNS)


def copied_row(link: Link) -> tuple[Any, ...]:
    """Return a sealed row as COPY takes it, in the order of `COLUMNS`."""
    *plain, changes, details = link.content.values()
    return (*plain, _json_text(changes), _json_text(details), link.prev_hash, link.hash)


def _json_text(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def link_of(row: RowMapping) -> Link:
    """Return a stored row as a link of the chain: what was hashed, and the hashes beside it."""
    content: Any = {column: row[column] for column in LogContent.__annotations__}
    content["time"] = rfc3339(row["time"])
    for column in _JSON_COLUMNS:
        if content[column] is not None:
            content[column] = orjson.loads(content[column])
    return Link(content, bytes(row["prev_hash"]), bytes(row["hash"]))


def log_view(content: LogContent) -> LogView:
    """Return a row as the contract shows it in lists."""
    return {
        "id": log_id(content["event_id"], content["part"]),
        "log_type": content["log_type"],
        "time": content["time"],
        "actor": content["actor_id"],
        "actor_name": content["actor_name"],
        "actor_type": content["actor_type"],
        "action": content["action"],
        "resource_type": content["resource_type"],
        "resource_id": content["resource_id"],
        "order_no": content["order_no"],
        "merchant_id": content["merchant_id"],
        "service": content["service"],
        "event": content["event"],
        "ip": content["ip"],
        "user_agent": content["user_agent"],
        "request_id": content["request_id"],
        "outcome": content["outcome"],
        "status": content["status"],
        "duration_ms": content["duration_ms"],
        "message": content["message"],
        "reason": content["reason"],
        "changes": content["changes"],
    }
