"""Heartbeats of devices, and the two edges between online and offline, each told once over any number of instances.

Only the database's clock counts: when a heartbeat arrives, and when silence has lasted too long.
Source: FEATURES.md B-C5.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from services.cards.devices import logs
from services.cards.devices.domain import HeartbeatRule
from shared import outbox
from shared.contracts.devices import (
    HEARTBEATS_MAX,
    DeviceCameOnline,
    DeviceNotFound,
    DeviceWentOffline,
    HeartbeatResult,
    HeartbeatsView,
    HeartbeatView,
)
from shared.errors import InvalidRequest
from shared.passport import Passport
from shared.times import rfc3339

DEVICES_PER_LOOK: Final = 500
GAP_SECONDS: Final = 30

# The rows are locked by their order before they change, so that two fleets never wait for each other in a ring; and
# what is read of a row under its lock is what the last one left, so that of two heartbeats one makes the edge.
_HEAR: Final = text(
    """
    with heard as (
        select device_id, last_seen_at, is_offline from device_presence
        where device_id = any(cast(:device_ids as text[]))
            and (cast(:merchants as text[]) is null or merchant_id = any(cast(:merchants as text[])))
        order by device_id
        for update
    ), seen as (
        update device_presence p set last_seen_at = clock_timestamp(), is_offline = false, offline_at = null
        from heard where p.device_id = heard.device_id
        returning p.device_id, p.last_seen_at, heard.is_offline as came_online,
            extract(epoch from p.last_seen_at - heard.last_seen_at) as silent_seconds
    )
    select seen.*, d.status, d.name, d.merchant_id from seen join devices d on d.id = seen.device_id
    """
)

# Nobody was there to listen during a gap between two looks: silence counts from its end.
_LOOK: Final = text(
    """
    update device_watch set
        resumed_at = case when looked_at < clock_timestamp() - make_interval(secs => :gap_seconds)
            then clock_timestamp() else resumed_at end,
        looked_at = clock_timestamp()
    returning resumed_at
    """
)

_MISS: Final = text(
    """
    with silent as (
        select device_id from device_presence
        where watched_since is not null and not is_offline
            and greatest(last_seen_at, watched_since, cast(:resumed_at as timestamptz))
                < clock_timestamp() - make_interval(secs => :silence_seconds)
            and last_seen_at is not null
        limit :devices_max
        for update skip locked
    ), missed as (
        update device_presence p set is_offline = true, offline_at = clock_timestamp()
        from silent where p.device_id = silent.device_id
        returning p.device_id, p.last_seen_at, extract(epoch from p.offline_at - p.last_seen_at) as silent_seconds
    )
    select missed.*, d.name, d.merchant_id from missed join devices d on d.id = missed.device_id
    """
)

_WATCH: Final = text(
    """
    insert into device_presence (device_id, merchant_id, watched_since)
    values (:device_id, :merchant_id, clock_timestamp())
    on conflict (device_id) do update set watched_since = clock_timestamp()
    """
)

_UNWATCH: Final = text(
    """
    with these as (
        select device_id from device_presence where device_id = any(cast(:device_ids as text[]))
        order by device_id for update
    )
    update device_presence p set watched_since = null, is_offline = false, offline_at = null
    from these where p.device_id = these.device_id
    """
)


def watch(session: Session, *, device_id: str, merchant_id: str) -> None:
    """Begin to miss a device that is bound and not blocked, from its next heartbeat or, known before, from now."""
    session.execute(_WATCH, {"device_id": device_id, "merchant_id": merchant_id})


def unwatch(session: Session, device_ids: Iterable[str]) -> None:
    """Stop missing devices that are blocked, or bound no longer: their silence is nobody's concern."""
    session.execute(_UNWATCH, {"device_ids": list(device_ids)})


def hear_device(session: Session, passport: Passport, rule: HeartbeatRule, *, device_id: str) -> HeartbeatView:
    """Note that a device is there. Raises: DeviceNotFound. Emits: DeviceCameOnline, when it was told to be offline."""
    heard = _hear(session, passport, [device_id])
    if not heard:
        raise DeviceNotFound
    [row] = heard
    return {
        "device_id": row.device_id,
        "status": row.status,
        "last_seen_at": rfc3339(row.last_seen_at),
        "next_within_seconds": rule.interval_seconds,
    }


def hear_devices(session: Session, passport: Passport, rule: HeartbeatRule, *, device_ids: list[str]) -> HeartbeatsView:
    """Note that many devices are there: what a fleet's own gateway sends for them.

    device_ids: 1 to `HEARTBEATS_MAX`; one that stands twice counts once.
    Raises: InvalidRequest.
    Emits: DeviceCameOnline, for each that was told to be offline.
    Locks: the presence of the devices by ascending id.
    """
    if not 1 <= len(device_ids) <= HEARTBEATS_MAX:
        raise InvalidRequest.of_field("device_ids", f"Name 1 to {HEARTBEATS_MAX} devices.")
    wanted = list(dict.fromkeys(device_ids))
    heard = {row.device_id: row for row in _hear(session, passport, wanted)}
    items = [_result(device_id, heard.get(device_id)) for device_id in wanted]
    return {
        "items": items,
        "seen": len(heard),
        "not_found": len(wanted) - len(heard),
        "next_within_seconds": rule.interval_seconds,
    }


def _result(device_id: str, row: Row[Any] | None) -> HeartbeatResult:
    if row is None:
        return {"device_id": device_id, "outcome": "not_found", "status": None, "last_seen_at": None}
    seen_at = rfc3339(row.last_seen_at)
    return {"device_id": device_id, "outcome": "seen", "status": row.status, "last_seen_at": seen_at}


def _hear(session: Session, passport: Passport, device_ids: list[str]) -> Sequence[Row[Any]]:
    rows = session.execute(_HEAR, {"device_ids": device_ids, "merchants": passport.merchant_filter()}).all()
    back = [row for row in rows if row.came_online]
    if back:
        outbox.add(session, *(DeviceCameOnline(**_facts(row)) for row in back))
        logs.tell(session, [_act(row, "online") for row in back], actor_name=passport.actor_name)
    return rows


def look(session: Session) -> datetime:
    """Note that somebody looks. Returns: since when somebody has, without a gap."""
    resumed_at: datetime | None = session.scalar(_LOOK, {"gap_seconds": GAP_SECONDS})
    assert resumed_at is not None
    return resumed_at


def miss_devices(session: Session, rule: HeartbeatRule, *, resumed_at: datetime, actor_name: str) -> int:
    """Find devices that have been silent for too long, up to `DEVICES_PER_LOOK`, each once.

    resumed_at: what `look` said.
    Returns: how many went offline.
    Emits: DeviceWentOffline for each.
    Locks: their presence, passing over what somebody else has locked: a heartbeat, or another instance's look.
    """
    values = {
        "resumed_at": resumed_at,
        "silence_seconds": rule.silence_max.total_seconds(),
        "devices_max": DEVICES_PER_LOOK,
    }
    rows = session.execute(_MISS, values).all()
    if rows:
        outbox.add(session, *(DeviceWentOffline(**_facts(row)) for row in rows))
        logs.tell(session, [_act(row, "offline") for row in rows], actor_name=actor_name)
    return len(rows)


def _facts(row: Row[Any]) -> dict[str, Any]:
    return {
        "device_id": row.device_id,
        "merchant_id": row.merchant_id,
        "name": row.name,
        "last_seen_at": rfc3339(row.last_seen_at),
        "silent_seconds": int(row.silent_seconds),
    }


def _act(row: Row[Any], action: str) -> tuple[str, str, str | None, str, str | None]:
    return row.device_id, row.merchant_id, None, action, f"silent for {int(row.silent_seconds)} s"
