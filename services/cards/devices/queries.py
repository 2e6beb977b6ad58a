"""Reads of devices and their bindings. Each is cut to the caller's merchants here, in SQL."""

from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, String, case, func, null, or_, select, true
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by, array
from sqlalchemy.orm import Session, aliased

from services.cards.devices.domain import DeviceStatus, HeartbeatRule
from services.cards.devices.models import CardDevice, Device, Presence
from services.cards.domain.numbers import looks_like_number
from services.cards.models import Card
from services.cards.queries import find_card
from shared.contracts.cards import NumberInAddress
from shared.contracts.devices import (
    BoundCardPage,
    BoundCardView,
    BoundDevicePage,
    BoundDeviceView,
    DeviceNotFound,
    DevicePage,
    DeviceView,
)
from shared.paging import LIMIT_DEFAULT, InvalidCursor, decode_cursor, encode_cursor
from shared.passport import Passport
from shared.times import rfc3339

_OPEN: Final = CardDevice.unbound_at.is_(None)
_NO_CARDS: Final = array([], type_=String)


def visible(passport: Passport) -> ColumnElement[bool]:
    """Return the condition that leaves the devices of the caller's merchants."""
    merchants = passport.merchant_filter()
    return true() if merchants is None else Device.merchant_id.in_(merchants)


def connection(rule: HeartbeatRule) -> ColumnElement[str | None]:
    """Return in SQL whether a device is online, late or offline, by the database's clock."""
    now = func.clock_timestamp()
    return case(
        (or_(Device.status != DeviceStatus.BOUND, Presence.last_seen_at.is_(None)), null()),
        (Presence.last_seen_at >= now - rule.interval, "online"),
        (Presence.last_seen_at >= now - rule.silence_max, "late"),
        else_="offline",
    )


def get_device(session: Session, passport: Passport, rule: HeartbeatRule, *, device_id: str) -> DeviceView:
    """Return one device. Raises: DeviceNotFound."""
    row = session.execute(_with_cards(_devices(passport, rule).where(Device.id == device_id))).first()
    if row is None:
        raise DeviceNotFound
    return _device_view(row)


def list_devices(
    session: Session,
    passport: Passport,
    rule: HeartbeatRule,
    *,
    q: str | None = None,
    status: str | None = None,
    connected: str | None = None,
    merchant_id: str | None = None,
    card_id: str | None = None,
    platform: str | None = None,
    limit: int = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> DevicePage:
    """Return the devices that fit all filters, newest first.

    q: a device's id or fingerprint, or a part of its name. card_id: those that are bound to this card now.
    Raises: NumberInAddress when `q` is a full card number; InvalidCursor.
    """
    exact = {"status": status, "merchant_id": merchant_id, "platform": platform}
    query = _devices(passport, rule)
    for name, value in exact.items():
        if value is not None:
            query = query.where(getattr(Device, name) == value)
    if q:
        query = query.where(_matches(q.strip()))
    if connected is not None:
        query = query.where(connection(rule) == connected)
    if card_id is not None:
        query = query.where(Device.id.in_(select(CardDevice.device_id).where(CardDevice.card_id == card_id, _OPEN)))
    if cursor:
        query = query.where(Device.id < _position(cursor, str))
    rows = session.execute(_with_cards(query.order_by(Device.id.desc()).limit(limit + 1))).all()
    items = [_device_view(row) for row in rows[:limit]]
    more = len(rows) > limit
    return {"items": items, "next_cursor": encode_cursor([items[-1]["device_id"]]) if more else None}


def _matches(q: str) -> ColumnElement[bool]:
    if looks_like_number(q):
        raise NumberInAddress.of_field("q", NumberInAddress.title)
    return or_(Device.name.icontains(q, autoescape=True), Device.id == q, Device.fingerprint == q)


def _devices(passport: Passport, rule: HeartbeatRule) -> Any:
    return (
        select(Device, Presence.last_seen_at, connection(rule).label("connection"))
        .outerjoin(Presence, Presence.device_id == Device.id)
        .where(visible(passport))
    )


def _with_cards(page: Select[Any]) -> Any:
    """Add their present cards to the devices of a page, and not to all those among which it is found."""
    found = page.subquery("page")
    card_ids = func.array_agg(aggregate_order_by(CardDevice.card_id, CardDevice.id), type_=ARRAY(String))
    cards = (
        select(func.coalesce(card_ids, _NO_CARDS).label("card_ids"), func.min(CardDevice.bound_at).label("bound_at"))
        .where(CardDevice.device_id == found.c.id, _OPEN)
        .correlate(found)
        .lateral("cards")
    )
    device = aliased(Device, found, name="Device")
    return (
        select(device, found.c.last_seen_at, found.c.connection, cards.c.card_ids, cards.c.bound_at)
        .join(cards, true())
        .order_by(found.c.id.desc())
    )


def _device_view(row: Row[Any]) -> DeviceView:
    device: Device = row.Device
    return {
        "device_id": device.id,
        "merchant_id": device.merchant_id,
        "name": device.name,
        "platform": device.platform,
        "fingerprint": device.fingerprint,
        "status": device.status,
        "status_reason": device.status_reason,
        "connection": row.connection,
        "card_ids": row.card_ids,
        "bound_at": None if row.bound_at is None else rfc3339(row.bound_at),
        "last_seen_at": None if row.last_seen_at is None else rfc3339(row.last_seen_at),
        "created_at": rfc3339(device.created_at),
        "updated_at": rfc3339(device.updated_at),
    }


def list_card_devices(
    session: Session,
    passport: Passport,
    rule: HeartbeatRule,
    *,
    card_id: str,
    history: bool = False,
    limit: int = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> BoundDevicePage:
    """Return the devices of a card, the newest binding first; with `history`, ended bindings too.

    Whoever may see the card sees no device that another merchant had on it before.
    Raises: CardNotFound, InvalidCursor.
    """
    find_card(session, passport, card_id)
    query = _bindings(passport, rule).where(CardDevice.card_id == card_id)
    rows, next_cursor = _binding_page(session, query, history=history, limit=limit, cursor=cursor)
    return {"items": [_bound_device_view(row) for row in rows], "next_cursor": next_cursor}


def get_binding(session: Session, passport: Passport, rule: HeartbeatRule, *, binding_id: int) -> BoundDeviceView:
    """Return one binding, which is there."""
    return _bound_device_view(session.execute(_bindings(passport, rule).where(CardDevice.id == binding_id)).one())


def _bindings(passport: Passport, rule: HeartbeatRule) -> Any:
    return (
        select(CardDevice, Device, Presence.last_seen_at, connection(rule).label("connection"))
        .join(Device, Device.id == CardDevice.device_id)
        .outerjoin(Presence, Presence.device_id == Device.id)
        .where(visible(passport))
    )


def _bound_device_view(row: Row[Any]) -> BoundDeviceView:
    device: Device = row.Device
    return {
        "device_id": device.id,
        "card_id": row.CardDevice.card_id,
        "name": device.name,
        "platform": device.platform,
        "fingerprint": device.fingerprint,
        "status": device.status,
        "connection": row.connection,
        **_interval(row.CardDevice),  # type: ignore[typeddict-item]  # three keys of the view
        "last_seen_at": None if row.last_seen_at is None else rfc3339(row.last_seen_at),
    }


def _interval(binding: CardDevice) -> dict[str, Any]:
    return {
        "bound_at": rfc3339(binding.bound_at),
        "unbound_at": None if binding.unbound_at is None else rfc3339(binding.unbound_at),
        "unbound_because": binding.unbound_because,
    }


def list_device_cards(
    session: Session,
    passport: Passport,
    *,
    device_id: str,
    history: bool = False,
    limit: int = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> BoundCardPage:
    """Return the cards of a device, the newest binding first; with `history`, ended bindings too.

    Raises: DeviceNotFound, InvalidCursor.
    """
    if session.scalar(select(Device.id).where(Device.id == device_id, visible(passport))) is None:
        raise DeviceNotFound
    query = (
        select(CardDevice, Card.number_masked)
        .join(Card, Card.id == CardDevice.card_id)
        .where(CardDevice.device_id == device_id)
    )
    rows, next_cursor = _binding_page(session, query, history=history, limit=limit, cursor=cursor)
    return {"items": [_bound_card_view(row) for row in rows], "next_cursor": next_cursor}


def _bound_card_view(row: Row[Any]) -> BoundCardView:
    return {
        "card_id": row.CardDevice.card_id,
        "device_id": row.CardDevice.device_id,
        "number_masked": row.number_masked,
        **_interval(row.CardDevice),  # type: ignore[typeddict-item]  # three keys of the view
    }


def _binding_page(
    session: Session, query: Any, *, history: bool, limit: int, cursor: str | None
) -> tuple[list[Row[Any]], str | None]:
    if not history:
        query = query.where(_OPEN)
    if cursor:
        query = query.where(CardDevice.id < _position(cursor, int))
    rows = list(session.execute(query.order_by(CardDevice.id.desc()).limit(limit + 1)))
    more = len(rows) > limit
    return rows[:limit], encode_cursor([rows[limit - 1].CardDevice.id]) if more else None


def _position(cursor: str, kind: type) -> Any:
    [position] = decode_cursor(cursor, length=1)
    if type(position) is not kind or (isinstance(position, int) and not abs(position) < 2**63):
        raise InvalidCursor.of_field("cursor", InvalidCursor.title)
    return position
