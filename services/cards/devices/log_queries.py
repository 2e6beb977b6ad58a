"""Searches of the device log, newest first, cut to the caller's merchants. A million rows are an ordinary day."""

import re
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import RowMapping, text
from sqlalchemy.orm import Session

from services.cards.domain.numbers import looks_like_number
from shared.contracts.cards import NumberInAddress
from shared.contracts.devices import DeviceLogPage, DeviceLogView, LogSearchTooBroad
from shared.errors import InvalidRequest
from shared.paging import LIMIT_DEFAULT, InvalidCursor, decode_cursor, encode_cursor
from shared.passport import Passport
from shared.searching import bounded_search
from shared.times import parse_rfc3339, rfc3339, utc_now

KEYWORD_WINDOW: Final = timedelta(days=30)

_SELECTED: Final = (
    "l.seq, l.device_id, l.event_id, l.merchant_id, l.card_id, l.source, l.action, l.result, l.ip, l.detail,"
    " l.actor_name, l.time, l.received_at"
)


def list_logs(
    session: Session,
    passport: Passport,
    *,
    device_id: str | None = None,
    card_id: str | None = None,
    merchant_id: str | None = None,
    action: str | None = None,
    result: str | None = None,
    source: str | None = None,
    from_time: str | None = None,
    to_time: str | None = None,
    q: str | None = None,
    limit: int = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> DeviceLogPage:
    """Return a page of the device log, newest first.

    q: a keyword, wherever it stands in the action, the result, the address or the detail. Without `from_time`, a device
    or a card it is looked for in the last `KEYWORD_WINDOW` before `to_time`.
    Raises: NumberInAddress when `q` is a full card number; InvalidRequest, InvalidCursor, LogSearchTooBroad.
    """
    if merchant_id is not None and not passport.sees(merchant_id):
        return {"items": [], "next_cursor": None}
    exact = {
        "device_id": device_id,
        "card_id": card_id,
        "merchant_id": merchant_id,
        "action": action,
        "result": result,
        "source": source,
    }
    values: dict[str, Any] = {name: value for name, value in exact.items() if value is not None}
    conditions = [f"l.{name} = :{name}" for name in values]
    is_pointed = device_id is not None or card_id is not None
    _add_times(conditions, values, from_time, to_time, is_windowed=bool(q) and not is_pointed)
    if q:
        conditions.append("l.search_text ilike :keyword")
        values["keyword"] = _pattern(q)
    if cursor is not None:
        conditions.append("(l.time, l.seq) < (:last_time, :last_seq)")
        values["last_time"], values["last_seq"] = _position(cursor)
    is_narrow = is_pointed or bool(q) or merchant_id is not None
    statement = _page_statement(conditions, values, passport, is_narrow=is_narrow)
    with bounded_search(session, LogSearchTooBroad):
        rows = session.execute(text(statement), values | {"limit_and_one": limit + 1}).mappings().all()
    more = len(rows) > limit
    last = rows[limit - 1] if more else None
    return {
        "items": [_log_view(row) for row in rows[:limit]],
        "next_cursor": encode_cursor([rfc3339(last["time"]), last["seq"]]) if last else None,
    }


def _add_times(
    conditions: list[str], values: dict[str, Any], from_time: str | None, to_time: str | None, *, is_windowed: bool
) -> None:
    if to_time is not None:
        conditions.append("l.time < :to_time")
        values["to_time"] = _instant("to", to_time)
    if from_time is not None:
        values["from_time"] = _instant("from", from_time)
    elif is_windowed:
        values["from_time"] = values.get("to_time", utc_now()) - KEYWORD_WINDOW
    if "from_time" in values:
        conditions.append("l.time >= :from_time")


def _instant(field: str, value: str) -> datetime:
    try:
        return parse_rfc3339(value)
    except ValueError:
        raise InvalidRequest.of_field(field, "Must be a time of RFC 3339 with its offset.") from None


def _pattern(q: str) -> str:
    if looks_like_number(q.strip()):
        raise NumberInAddress.of_field("q", NumberInAddress.title)
    escaped = re.sub(r"([\\%_])", r"\\\1", q)
    return f"%{escaped}%"


def _position(cursor: str) -> tuple[datetime, int]:
    time, seq = decode_cursor(cursor, length=2)
    if not isinstance(time, str) or type(seq) is not int or not abs(seq) < 2**63:
        raise InvalidCursor.of_field("cursor", InvalidCursor.title)
    return _instant("cursor", time), seq


def _page_statement(conditions: list[str], values: dict[str, Any], passport: Passport, *, is_narrow: bool) -> str:
    """Return the SQL of a page within what the caller sees.

    is_narrow: whether the search itself leads to few rows, of which those in scope are picked. Else somebody who sees
    some merchants gets the newest rows of each by that merchant's index, merged: one scan for all of them would read
    through everybody else's rows.
    """
    newest = "order by time desc, seq desc limit :limit_and_one"
    merchants = passport.merchant_filter()
    if merchants is not None:
        values["merchants"] = merchants
        if is_narrow:
            conditions = [*conditions, "l.merchant_id = any(cast(:merchants as text[]))"]
    where = " and ".join(conditions) or "true"
    if merchants is None or is_narrow:
        return f"select {_SELECTED} from device_logs l where {where} {newest}"
    return (
        "select seen.* from unnest(cast(:merchants as text[])) as scope (merchant_id) cross join lateral"
        f" (select {_SELECTED} from device_logs l where l.merchant_id = scope.merchant_id and {where} {newest}) seen"
        f" {newest}"
    )


def _log_view(row: RowMapping) -> DeviceLogView:
    return {
        "device_id": row["device_id"],
        "event_id": row["event_id"],
        "merchant_id": row["merchant_id"],
        "card_id": row["card_id"],
        "source": row["source"],
        "action": row["action"],
        "result": row["result"],
        "ip": row["ip"],
        "detail": row["detail"],
        "actor_name": row["actor_name"],
        "time": rfc3339(row["time"]),
        "received_at": rfc3339(row["received_at"]),
    }
