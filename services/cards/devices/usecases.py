"""What can be done to devices: bound to cards, unbound, changed, blocked. Each runs in the caller's transaction.

Locks, always in this order: the card, then devices by ascending id. A binding begins under both and ends under that of
its device, so that both limits are exact. People write card numbers everywhere: in names and reasons they are masked.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.cards.cipher import NumberCipher
from services.cards.devices import heartbeats, logs, queries
from services.cards.devices.domain import Because, BindingLimits, DeviceStatus, HeartbeatRule, may_be_shown
from services.cards.devices.models import CardDevice, Device
from services.cards.domain.states import Status, require_open
from services.cards.models import Card
from services.cards.queries import lock_card
from services.cards.timeline.telling import tell
from shared import outbox
from shared.contracts.devices import (
    BoundDeviceView,
    CardDeviceLimitReached,
    CardHasNoMerchant,
    DeviceAlreadyBound,
    DeviceBlocked,
    DeviceBound,
    DeviceCardLimitReached,
    DeviceIsBlocked,
    DeviceNotBound,
    DeviceNotFound,
    DeviceNotNamed,
    DeviceOfOtherMerchant,
    DeviceUnblocked,
    DeviceUnbound,
    DeviceUpdated,
    DeviceView,
)
from shared.errors import InvalidRequest
from shared.ids import new_id
from shared.masking import mask_text
from shared.passport import Passport


def bind_device(
    session: Session,
    passport: Passport,
    cipher: NumberCipher,
    limits: BindingLimits,
    rule: HeartbeatRule,
    *,
    card_id: str,
    device_id: str | None = None,
    fingerprint: str | None = None,
    name: str | None = None,
    platform: str | None = None,
) -> BoundDeviceView:
    """Bind a device to a card: one that is known by its id or its fingerprint, else a new one.

    A fingerprint is known within the card's merchant; a known device keeps the name and platform that it has.
    Raises, in order: DeviceNotNamed, CardNotFound, CardIsClosed, CardHasNoMerchant, DeviceNotFound,
    DeviceOfOtherMerchant, DeviceIsBlocked, DeviceAlreadyBound, CardDeviceLimitReached, DeviceCardLimitReached.
    Emits: DeviceBound.   Locks: card, then device.
    """
    _require_named(device_id, fingerprint, name, platform)
    card = lock_card(session, passport, card_id)
    require_open(Status(card.status))
    if card.merchant_id is None:
        raise CardHasNoMerchant
    if device_id is not None:
        device = _lock_device(session, passport, device_id)
    else:
        assert fingerprint is not None
        facts = {"name": mask_text(name or ""), "platform": mask_text(platform or "")}
        device = _known_or_new(session, card.merchant_id, _storable(fingerprint, cipher), facts)
    if device.merchant_id != card.merchant_id:
        raise DeviceOfOtherMerchant
    _require_room(session, card, device, limits)
    binding = CardDevice(
        card_id=card.id, device_id=device.id, bound_at=_now_under_lock(session), bound_by=passport.actor_id
    )
    session.add(binding)
    if device.status == DeviceStatus.UNBOUND:
        device.status, device.updated_at = DeviceStatus.BOUND, binding.bound_at
        heartbeats.watch(session, device_id=device.id, merchant_id=device.merchant_id)
    session.flush()
    tell(session, DeviceBound(**_facts(device), card_id=card.id, platform=device.platform))
    logs.tell(session, [_act(device, "bind", card_id=card.id)], actor_name=passport.actor_name)
    return queries.get_binding(session, passport, rule, binding_id=binding.id)


def _require_named(device_id: str | None, fingerprint: str | None, name: str | None, platform: str | None) -> None:
    told = (fingerprint, name, platform)
    is_known, is_new = device_id is not None and not any(told), device_id is None and all(told)
    if not (is_known or is_new):
        raise DeviceNotNamed.of_field("device_id", DeviceNotNamed.title)


def _storable(fingerprint: str, cipher: NumberCipher) -> str:
    return fingerprint if may_be_shown(fingerprint) else logs.hidden_key(fingerprint, cipher)


def _known_or_new(session: Session, merchant_id: str, fingerprint: str, facts: dict[str, str]) -> Device:
    """Return the merchant's device with this fingerprint, locked; made by us or by whoever was quicker."""
    make = (
        insert(Device)
        .values(
            id=new_id("dev"), merchant_id=merchant_id, fingerprint=fingerprint, status=DeviceStatus.UNBOUND, **facts
        )
        .on_conflict_do_nothing(constraint="uq_devices_fingerprint")
        .returning(Device)
    )
    device = session.scalar(make)
    if device is None:
        known = (Device.merchant_id == merchant_id, Device.fingerprint == fingerprint)
        device = session.scalars(select(Device).where(*known).with_for_update()).one()
    return device


def _require_room(session: Session, card: Card, device: Device, limits: BindingLimits) -> None:
    if device.status == DeviceStatus.BLOCKED:
        raise DeviceIsBlocked
    its_open = CardDevice.unbound_at.is_(None)
    on_card = set(session.scalars(select(CardDevice.device_id).where(CardDevice.card_id == card.id, its_open)))
    if device.id in on_card:
        raise DeviceAlreadyBound
    if len(on_card) >= limits.devices_per_card:
        raise CardDeviceLimitReached(limit=limits.devices_per_card)
    cards = session.scalar(select(func.count()).where(CardDevice.device_id == device.id, its_open))
    assert cards is not None
    if cards >= limits.cards_per_device:
        raise DeviceCardLimitReached(limit=limits.cards_per_device)


def unbind_device(
    session: Session,
    passport: Passport,
    rule: HeartbeatRule,
    *,
    device_id: str,
    card_id: str | None = None,
    reason: str | None = None,
) -> DeviceView:
    """Unbind a device from one card, or from all of its cards. A blocked one stays blocked.

    Raises, in order: DeviceNotFound, DeviceNotBound.
    Emits: DeviceUnbound for each card.   Locks: device.
    """
    device = _lock_device(session, passport, device_id)
    query = select(CardDevice).where(CardDevice.device_id == device.id, CardDevice.unbound_at.is_(None))
    if card_id is not None:
        query = query.where(CardDevice.card_id == card_id)
    bindings = session.scalars(query.order_by(CardDevice.id)).all()
    if not bindings:
        raise DeviceNotBound
    reason = None if reason is None else mask_text(reason)
    _end(session, passport, {device.id: device}, bindings, Because.UNBOUND, reason)
    return queries.get_device(session, passport, rule, device_id=device.id)


def end_bindings(session: Session, passport: Passport, card_ids: Iterable[str], because: Because) -> None:
    """End all bindings of cards that the caller has locked and that are closed, or change hands.

    Emits: DeviceUnbound for each.   Locks: their devices by ascending id.
    """
    of_cards = (CardDevice.card_id.in_(list(card_ids)), CardDevice.unbound_at.is_(None))
    its_devices = select(CardDevice.device_id).where(*of_cards)
    query = select(Device).where(Device.id.in_(its_devices)).order_by(Device.id).with_for_update()
    devices = {device.id: device for device in session.scalars(query)}
    if not devices:
        return
    # Read again under the locks: a binding may have ended while we waited; none can have begun.
    bindings = session.scalars(select(CardDevice).where(*of_cards).order_by(CardDevice.id)).all()
    if bindings:
        _end(session, passport, devices, bindings, because, None)


def _end(
    session: Session,
    passport: Passport,
    devices: dict[str, Device],
    bindings: Sequence[CardDevice],
    because: Because,
    reason: str | None,
) -> None:
    now = _now_under_lock(session)
    for binding in bindings:
        binding.unbound_at = max(now, binding.bound_at)
        binding.unbound_by, binding.unbound_because = passport.actor_id, because
    session.flush()
    touched = [devices[device_id] for device_id in sorted({binding.device_id for binding in bindings})]
    still_open = select(CardDevice.device_id).where(
        CardDevice.device_id.in_([device.id for device in touched]), CardDevice.unbound_at.is_(None)
    )
    bound = set(session.scalars(still_open))
    idle = [device for device in touched if device.id not in bound and device.status == DeviceStatus.BOUND]
    for device in idle:
        device.status, device.updated_at = DeviceStatus.UNBOUND, now
    session.flush()
    if idle:
        heartbeats.unwatch(session, [device.id for device in idle])
    events = [
        DeviceUnbound(**_facts(devices[b.device_id]), card_id=b.card_id, because=because.value, reason=reason)
        for b in bindings
    ]
    tell(session, *events)
    detail = reason if because is Because.UNBOUND else because.value
    acts = [_act(devices[b.device_id], "unbind", card_id=b.card_id, detail=detail) for b in bindings]
    logs.tell(session, acts, actor_name=passport.actor_name)


def update_device(
    session: Session,
    passport: Passport,
    rule: HeartbeatRule,
    *,
    device_id: str,
    name: str | None = None,
    platform: str | None = None,
    status: str | None = None,
    reason: str | None = None,
) -> DeviceView:
    """Change a device's name or platform, block it or unblock it; what is None, or so already, stays.

    status: `blocked`, for which `reason` is required, or `bound` to unblock; one that is on no card is unbound then.
    Raises, in order: InvalidRequest, DeviceNotFound, DeviceNotBound for unblocking what is on no card.
    Emits: DeviceUpdated, DeviceBlocked, DeviceUnblocked, where something changed.   Locks: device.
    """
    if status == DeviceStatus.BLOCKED and not reason:
        raise InvalidRequest.of_field("reason", "A device is blocked for a reason.")
    reason = None if reason is None else mask_text(reason)
    device = _lock_device(session, passport, device_id)
    now = _now_under_lock(session)
    changes = {}
    for field, value in (("name", name), ("platform", platform)):
        before, after = getattr(device, field), None if value is None else mask_text(value)
        if after is not None and after != before:
            setattr(device, field, after)
            changes[field] = {"before": before, "after": after}
    if changes:
        device.updated_at = now
        outbox.add(session, DeviceUpdated(**_facts(device), changes=changes))
        detail = ", ".join(f"{field}: {change['after']}" for field, change in changes.items())
        logs.tell(session, [_act(device, "update", detail=detail)], actor_name=passport.actor_name)
    if status == DeviceStatus.BLOCKED and device.status != DeviceStatus.BLOCKED:
        assert reason is not None
        _block(session, passport, device, now, reason)
    elif status == DeviceStatus.BOUND and device.status == DeviceStatus.BLOCKED:
        _unblock(session, passport, device, now, reason)
    elif status == DeviceStatus.BOUND and device.status == DeviceStatus.UNBOUND:
        raise DeviceNotBound("The device is bound to no card; bind it to one.")
    session.flush()
    return queries.get_device(session, passport, rule, device_id=device.id)


def _block(session: Session, passport: Passport, device: Device, now: datetime, reason: str) -> None:
    before = device.status
    device.status, device.status_reason, device.updated_at = DeviceStatus.BLOCKED, reason, now
    session.flush()
    heartbeats.unwatch(session, [device.id])
    changes = {"status": {"before": before, "after": DeviceStatus.BLOCKED.value}}
    outbox.add(session, DeviceBlocked(**_facts(device), reason=reason, changes=changes))
    logs.tell(session, [_act(device, "block", detail=reason)], actor_name=passport.actor_name)


def _unblock(session: Session, passport: Passport, device: Device, now: datetime, reason: str | None) -> None:
    is_open = (CardDevice.device_id == device.id, CardDevice.unbound_at.is_(None))
    is_bound = session.scalar(select(select(CardDevice.id).where(*is_open).exists()))
    after = DeviceStatus.BOUND if is_bound else DeviceStatus.UNBOUND
    device.status, device.status_reason, device.updated_at = after, None, now
    session.flush()
    if is_bound:
        heartbeats.watch(session, device_id=device.id, merchant_id=device.merchant_id)
    changes = {"status": {"before": DeviceStatus.BLOCKED.value, "after": after.value}}
    outbox.add(session, DeviceUnblocked(**_facts(device), reason=reason, changes=changes))
    logs.tell(session, [_act(device, "unblock", detail=reason)], actor_name=passport.actor_name)


def _lock_device(session: Session, passport: Passport, device_id: str) -> Device:
    query = select(Device).where(Device.id == device_id, queries.visible(passport)).with_for_update()
    device = session.scalar(query)
    if device is None:
        raise DeviceNotFound
    return device


def _now_under_lock(session: Session) -> datetime:
    """Return the database's time. It is read under the locks, so that no interval ends before it began."""
    now: datetime | None = session.scalar(select(func.clock_timestamp()))
    assert now is not None
    return now


def _facts(device: Device) -> dict[str, Any]:
    return {"device_id": device.id, "merchant_id": device.merchant_id, "name": device.name}


def _act(
    device: Device, action: str, *, card_id: str | None = None, detail: str | None = None
) -> tuple[str, str, str | None, str, str | None]:
    return device.id, device.merchant_id, card_id, action, detail
