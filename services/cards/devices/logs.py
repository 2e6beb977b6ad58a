"""The device log: rows that devices send, each once by the device's own event id, and rows of what is done to them.

A million rows are an ordinary day: they go in by one statement a batch. `log_queries` finds them again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from services.cards.cipher import NumberCipher
from services.cards.devices.domain import LogRow, RefusedRow, may_be_shown, read_log_row
from services.cards.devices.models import CardDevice, Device
from services.cards.devices.queries import visible
from shared import outbox
from shared.contracts.devices import (
    LOG_ROWS_MAX,
    DeviceLogsStored,
    DeviceNotFound,
    InvalidLogBatch,
    LogRowResult,
    LogRowsView,
)
from shared.ids import new_id
from shared.passport import Passport
from shared.times import utc_now

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
    now = utc_now()
    _make_partitions(session, [now, now + timedelta(days=1)])  # the rows bear the database's time, not ours
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
