"""Put messages into the queue: because money moved, because somebody asked for a test, because one is tried again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import and_, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.telegram.domain import adjustment_text, device_text, is_large, large_change_text, test_text
from services.telegram.models import Adjustment, Binding, DeviceEdge, LargeChange, Notification
from services.telegram.queries import find_binding, find_notification
from shared import outbox
from shared.contracts.devices import DeviceCameOnline, DeviceWentOffline
from shared.contracts.ledger import ADMIN_TYPES, EntryView
from shared.contracts.telegram import (
    BindingIsDisabled,
    BindingNotFound,
    NotificationAlreadySent,
    NotificationRetried,
    NotificationView,
    TestNotificationQueued,
)
from shared.ids import new_id
from shared.masking import mask_text
from shared.passport import Passport
from shared.times import utc_now

BINDING_DISABLED = "The binding is disabled."


def queue_changes(session: Session, *, entries: Mapping[str, Sequence[EntryView]], default_threshold: str) -> int:
    """Queue a message for each entry and each binding of its merchant whose rules it meets: adjusted, or large.

    What is both is told once, as adjusted. A binding that is disabled gets its message suppressed, so that the
    delivery log tells what the group missed.
    entries: those of each event, by its id.
    default_threshold: that of the rules that name none.
    Returns: how many messages are new.
    Idempotent: on (event, entry, binding).
    """
    merchants = sorted({entry["merchant_id"] for changed in entries.values() for entry in changed})
    rules = session.execute(
        select(Binding, LargeChange, Adjustment)
        .outerjoin(LargeChange, and_(LargeChange.binding_id == Binding.id, LargeChange.enabled))
        .outerjoin(Adjustment, and_(Adjustment.binding_id == Binding.id, Adjustment.enabled))
        .where(Binding.merchant_id.in_(merchants))
    ).all()
    rows = [
        {**_row(binding, type, text), "event_id": event_id, "entry_id": entry["entry_id"]}
        for event_id, changed in entries.items()
        for binding, entry, type, text in _told(rules, changed, Decimal(default_threshold))
    ]
    if not rows:
        return 0
    make = insert(Notification).values(rows).on_conflict_do_nothing(constraint="uq_notifications_source")
    return len(session.scalars(make.returning(Notification.id)).all())


def _told(
    rules: Sequence[Any], entries: Iterable[EntryView], default_threshold: Decimal
) -> Iterator[tuple[Binding, EntryView, str, str]]:
    for entry in entries:
        for binding, large_change, adjustment in rules:
            if entry["merchant_id"] != binding.merchant_id:
                continue
            if adjustment is not None and entry["type"] in ADMIN_TYPES:
                yield binding, entry, "adjustment", adjustment_text(entry, binding.language)
            elif large_change is not None and is_large(entry["amount"], large_change.threshold or default_threshold):
                yield binding, entry, "large_change", large_change_text(entry, binding.language)


def queue_device_edge(session: Session, *, event_id: str, edge: DeviceWentOffline | DeviceCameOnline) -> int:
    """Queue a message for each binding of the device's merchant whose rule is on: it went offline, or is back.

    Returns: how many messages there are. An event comes here once: the inbox sees to that.
    """
    bindings = session.scalars(
        select(Binding)
        .join(DeviceEdge, DeviceEdge.binding_id == Binding.id)
        .where(Binding.merchant_id == edge.merchant_id, DeviceEdge.enabled)
    )
    is_offline = isinstance(edge, DeviceWentOffline)
    rows = [
        {
            **_row(binding, "device", device_text(edge.payload(), binding.language, is_offline=is_offline)),
            "event_id": event_id,
        }
        for binding in bindings
    ]
    if rows:
        session.execute(insert(Notification).values(rows))
    return len(rows)


def _row(binding: Binding, type: str, text: str) -> dict[str, Any]:
    is_active = binding.status == "active"
    return {
        "id": new_id("ntf"),
        "binding_id": binding.id,
        "merchant_id": binding.merchant_id,
        "chat_id": binding.chat_id,
        "type": type,
        # A card number does not leave the house, whatever field it was typed into.
        "text": mask_text(text),
        "status": "queued" if is_active else "suppressed",
        "last_error": None if is_active else BINDING_DISABLED,
    }


def queue_test(session: Session, passport: Passport, *, binding_id: str) -> NotificationView:
    """Queue a message that shows whether the group can be reached.

    Raises, in order: BindingNotFound, BindingIsDisabled.
    Emits: TestNotificationQueued.
    """
    binding = find_binding(session, passport, binding_id)
    if binding.status != "active":
        raise BindingIsDisabled
    row = _row(binding, "test", test_text(binding.language))
    notification = session.scalars(insert(Notification).values(row).returning(Notification)).one()
    event = TestNotificationQueued(
        notification_id=notification.id, binding_id=binding.id, merchant_id=binding.merchant_id
    )
    outbox.add(session, event)
    return notification.view()


def retry_notification(session: Session, passport: Passport, *, notification_id: str) -> NotificationView:
    """Put a message that was given up, suppressed or is waiting for its next attempt at the queue's head.

    It goes to where the binding's group is now. One that is being sent at this moment is left to its sender.
    Raises, in order: NotificationNotFound, NotificationAlreadySent, BindingNotFound, BindingIsDisabled.
    Emits: NotificationRetried, if its status changed.   Locks: notification.
    """
    notification = find_notification(session, passport, notification_id, is_locked=True)
    if notification.status == "sent":
        raise NotificationAlreadySent
    binding = session.get(Binding, notification.binding_id)
    if binding is None:
        raise BindingNotFound("The binding of this notification was deleted.")
    if binding.status != "active":
        raise BindingIsDisabled
    if notification.lease_token is not None and notification.due_at > utc_now():
        return notification.view()
    status_before = notification.status
    notification.status, notification.failures = "queued", 0
    notification.chat_id = binding.chat_id
    notification.due_at = func.clock_timestamp()
    session.flush()
    session.refresh(notification)
    if status_before != "queued":
        event = NotificationRetried(
            notification_id=notification.id,
            binding_id=binding.id,
            merchant_id=binding.merchant_id,
            changes={"status": {"before": status_before, "after": "queued"}},
        )
        outbox.add(session, event)
    return notification.view()
