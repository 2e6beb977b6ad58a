"""The device log: rows that devices send, each once by the device's own event id, and rows of what is done to them.

A million rows are an ordinary day: they go in by one statement a batch, and come out by SQL.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from psycopg.errors import QueryCanceled
from sqlalchemy import RowMapping, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from services.cards.cipher import NumberCipher
from services.cards.devices.domain import LogRow, RefusedRow, may_be_shown, read_log_row
from services.cards.devices.models import CardDevice, Device
from services.cards.devices.queries import visible
from services.cards.domain.numbers import looks_like_number
from shared import outbox
from shared.contracts.cards import NumberInAddress
from shared.contracts.devices import (
    LOG_ROWS_MAX,
    DeviceLogPage,
    DeviceLogsStored,
    DeviceLogView,
    DeviceNotFound,
    InvalidLogBatch,
    LogRowResult,
    LogRowsView,
    LogSearchTooBroad,
)
from shared.errors import InvalidRequest
from shared.ids import new_id
from shared.paging import LIMIT_DEFAULT, InvalidCursor, decode_cursor, encode_cursor
from shared.passport import Passport
from shared.times import parse_rfc3339, rfc3339, utc_now

KEYWORD_WINDOW: Final = timedelta(days=30)
SEARCH_TIMEOUT_MS: Final = 8_000

_SENT_COLUMNS: Final = ("event_id", "time", "card_id", "action", "result", "ip", "detail")

_MAKE_PARTITIONS: Final = text(
    "select make_device_log_partition(cast(first_day as date)) from unnest(cast(:first_days as text[])) first_day"
)

# Keys go in by order, so that two batches with the same events wait for each other and never in a ring.
_STORE: Final = text(
    """
    with sent as (
        select * from unnest(
            cast(:event_ids as text[]), cast(:times as timestamptz[]), cast(:card_ids as text[]),
            cast(:actions as text[]), cast(:results as text[]), cast(:ips as text[]), cast(:details as text[])
        ) as sent (event_id, time, card_id, action, result, ip, detail)
    ), fresh as (
        insert into device_log_keys (device_id, event_id, time)
        select :device_id, event_id, time from sent order by event_id
        on conflict do nothing
        returning event_id
    ), stored as (
        insert into device_logs
            (device_id, merchant_id, source, event_id, time, card_id, action, result, ip, detail, actor_name)
        select :device_id, :merchant_id, 'device', event_id, time, card_id, action, result, ip, detail, :actor_name
        from sent join fresh using (event_id)
    )
    select event_id from fresh
    """
)

_TELL: Final = text(
    """
    insert into device_logs
        (device_id, merchant_id, source, event_id, time, card_id, action, result, detail, actor_name)
    select
        device_id, merchant_id, 'system', event_id, clock_timestamp(), card_id, action, 'success', detail, :actor_name
    from unnest(
        cast(:device_ids as text[]), cast(:merchant_ids as text[]), cast(:event_ids as text[]),
        cast(:card_ids as text[]), cast(:actions as text[]), cast(:details as text[])
    ) as told (device_id, merchant_id, event_id, card_id, action, detail)
    """
)


def tell(
    session: Session,
    acts: Iterable[tuple[str, str, str | None, str, str | None]],
    *,
    actor_name: str,
) -> None:
    """Write into the log what was done to devices. acts: device, merchant, card, action, detail."""
    device_ids, merchant_ids, card_ids, actions, details = zip(*acts, strict=True)
    _make_partitions(session, [utc_now()])
    values = {
        "device_ids": list(device_ids),
        "merchant_ids": list(merchant_ids),
        "event_ids": [new_id("dle") for _ in device_ids],
        "card_ids": list(card_ids),
        "actions": list(actions),
        "details": list(details),
        "actor_name": actor_name,
    }
    session.execute(_TELL, values)


def _make_partitions(session: Session, times: Iterable[datetime]) -> None:
    first_days = sorted({f"{time:%Y-%m}-01" for time in times})
    session.execute(_MAKE_PARTITIONS, {"first_days": first_days})


def store_logs(session: Session, passport: Passport, cipher: NumberCipher, *, device_id: str, rows: Any) -> LogRowsView:
    """Store the rows of a device's log that are new and right, in whatever order they come.

    rows: 1 to `LOG_ROWS_MAX`. Of two rows with one event id the first that ever came stays.
    Returns: for each row, in its order, whether it is stored, was stored before, or is refused and why.
    Raises, in order: InvalidLogBatch, DeviceNotFound.
    Emits: DeviceLogsStored, when a row is new.
    Idempotent: on (device, event id), whatever else the row says.
    """
    if not isinstance(rows, list) or not 1 <= len(rows) <= LOG_ROWS_MAX:
        raise InvalidLogBatch.of_field("rows", InvalidLogBatch.title)
    device = session.scalar(select(Device).where(Device.id == device_id, visible(passport)))
    if device is None:
        raise DeviceNotFound
    ever = session.scalars(select(CardDevice.card_id).where(CardDevice.device_id == device_id).distinct())
    card_ids, now = frozenset(ever), utc_now()
    read = [_hidden(read_log_row(raw, now=now, card_ids=card_ids), cipher) for raw in rows]
    first_of: dict[str, LogRow] = {}
    for row in read:
        if isinstance(row, LogRow):
            first_of.setdefault(row.event_id, row)
    fresh = _store(session, device, list(first_of.values()), passport.actor_name)
    view = _results(read, fresh)
    if view["stored"]:
        counts = {name: view[name] for name in ("stored", "duplicates", "refused")}
        event = DeviceLogsStored(device_id=device.id, merchant_id=device.merchant_id, name=device.name, **counts)
        outbox.add(session, event)
    return view


def _hidden(row: LogRow | RefusedRow, cipher: NumberCipher) -> LogRow | RefusedRow:
    """Return the row with an event id that may be a card number hidden; equal ids stay equal."""
    if isinstance(row, LogRow) and not may_be_shown(row.event_id):
        return replace(row, event_id=hidden_key(row.event_id, cipher))
    return row


def hidden_key(key: str, cipher: NumberCipher) -> str:
    """Return a keyed hash in place of a key that may be a card number: one in ten long numbers looks like one."""
    return f"hidden:{cipher.hide(key)[:40]}"


def _store(session: Session, device: Device, rows: Sequence[LogRow], actor_name: str) -> set[str]:
    if not rows:
        return set()
    _make_partitions(session, (row.time for row in rows))
    values = {f"{column}s": [getattr(row, column) for row in rows] for column in _SENT_COLUMNS}
    of_device = {"device_id": device.id, "merchant_id": device.merchant_id, "actor_name": actor_name}
    return set(session.scalars(_STORE, values | of_device))


def _results(rows: Iterable[LogRow | RefusedRow], fresh: set[str]) -> LogRowsView:
    items: list[LogRowResult] = []
    waiting = set(fresh)
    for row in rows:
        if isinstance(row, RefusedRow):
            items.append({"event_id": row.event_id, "outcome": "refused", "errors": row.errors})
        else:
            items.append({"event_id": row.event_id, "outcome": "stored" if row.event_id in waiting else "duplicate"})
            waiting.discard(row.event_id)
    refused = sum(item["outcome"] == "refused" for item in items)
    return {
        "items": items,
        "stored": len(fresh),
        "duplicates": len(items) - len(fresh) - refused,
        "refused": refused,
    }


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
    with _bounded_search(session):
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


@contextmanager
def _bounded_search(session: Session) -> Iterator[None]:
    """Bound a search in time, and have it planned for its own values, or the trigrams are passed over.

    Raises: LogSearchTooBroad.   Source: PERFORMANCE.md "Two traps that cost seconds".
    """
    session.execute(
        text(
            "select set_config('plan_cache_mode', 'force_custom_plan', true),"
            " set_config('statement_timeout', :timeout, true)"
        ),
        {"timeout": str(SEARCH_TIMEOUT_MS)},
    )
    try:
        yield
    except OperationalError as error:
        if isinstance(error.orig, QueryCanceled):
            raise LogSearchTooBroad from None
        raise


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
