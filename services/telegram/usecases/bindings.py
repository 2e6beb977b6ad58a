"""Bind a merchant to a group, and say what the group is told."""

from typing import Any

from sqlalchemy import update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.telegram.domain import parse_chat_id, parse_threshold
from services.telegram.models import Adjustment, Binding, DeviceEdge, LargeChange, Notification, Pace
from services.telegram.queries import find_binding, rules_view
from shared import outbox
from shared.contracts.telegram import (
    AdjustmentRule,
    BindingCreated,
    BindingDeleted,
    BindingUpdated,
    BindingView,
    ChatAlreadyBound,
    DeviceRule,
    LargeChangeRule,
    NotificationRulesChanged,
    RulesView,
)
from shared.ids import new_id
from shared.passport import Passport

LARGE_CHANGE_THRESHOLD = "large_change.threshold"


def create_binding(session: Session, *, merchant_id: str, chat_id: str, title: str, language: str) -> BindingView:
    """Bind a merchant, which the caller has been found to see, to a group. All rules are off at first.

    title: "" takes the group's own with the first message.
    Raises, in order: InvalidChatId, ChatAlreadyBound.
    Emits: BindingCreated.
    """
    chat = parse_chat_id(chat_id)
    row = {
        "id": new_id("tgb"),
        "merchant_id": merchant_id,
        "chat_id": chat,
        "title": title,
        "language": language,
    }
    make = insert(Binding).values(row).on_conflict_do_nothing(constraint="uq_bindings_chat_id").returning(Binding)
    binding = session.scalar(make)
    if binding is None:
        raise ChatAlreadyBound
    keep_pace(session, chat)
    outbox.add(
        session,
        BindingCreated(binding_id=binding.id, merchant_id=merchant_id, chat_id=chat_id, title=title, language=language),
    )
    return binding.view()


def keep_pace(session: Session, chat_id: int) -> None:
    """Make sure that the pace of a chat is kept."""
    session.execute(insert(Pace).values(chat_id=chat_id).on_conflict_do_nothing())


def update_binding(session: Session, passport: Passport, *, binding_id: str, changes: dict[str, str]) -> BindingView:
    """Change a binding's title, language or status. Enabling it again forgets why it was disabled.

    changes: field to its new value; what is missing stays.
    Raises: BindingNotFound.
    Emits: BindingUpdated, if anything changed.   Locks: binding.
    """
    binding = find_binding(session, passport, binding_id, is_locked=True)
    wanted: dict[str, Any] = dict(changes)
    if "status" in changes and changes["status"] != binding.status:
        wanted["status_reason"] = None
    change_binding(session, binding, wanted)
    return binding.view()


def change_binding(session: Session, binding: Binding, wanted: dict[str, Any]) -> None:
    """Set fields of a locked binding and tell of those that differ."""
    view_before = binding.view()
    for name, value in wanted.items():
        setattr(binding, name, value)
    session.flush()
    session.refresh(binding)
    view_after = binding.view()
    differing = {
        name: {"before": before, "after": view_after[name]}  # type: ignore[literal-required]
        for name, before in view_before.items()
        if name != "updated_at" and view_after[name] != before  # type: ignore[literal-required]
    }
    if differing:
        event = BindingUpdated(binding_id=binding.id, merchant_id=binding.merchant_id, changes=differing)
        outbox.add(session, event)


def delete_binding(session: Session, passport: Passport, *, binding_id: str) -> None:
    """End a binding. What still waits for its group is suppressed; the delivery log stays.

    Raises: BindingNotFound.
    Emits: BindingDeleted.   Locks: binding.
    """
    binding = find_binding(session, passport, binding_id, is_locked=True)
    suppress_waiting(session, binding.id, because="The binding was deleted.")
    event = BindingDeleted(binding_id=binding.id, merchant_id=binding.merchant_id, chat_id=str(binding.chat_id))
    session.delete(binding)
    session.flush()
    outbox.add(session, event)


def suppress_waiting(session: Session, binding_id: str, *, because: str) -> None:
    """Take a binding's messages out of the queue; each can be put back by hand."""
    waiting = (Notification.binding_id == binding_id, Notification.status.in_(("queued", "failed")))
    suppressed = {"status": "suppressed", "last_error": because}
    session.execute(update(Notification).where(*waiting).values(suppressed))


def change_rules(
    session: Session,
    passport: Passport,
    *,
    binding_id: str,
    large_change: LargeChangeRule,
    adjustment: AdjustmentRule | None = None,
    device: DeviceRule | None = None,
) -> RulesView:
    """Set the rules of a binding.

    adjustment, device: None leaves this rule as it is, for those who do not know of it.
    Raises, in order: InvalidThreshold, BindingNotFound.
    Emits: NotificationRulesChanged, if anything changed.   Locks: binding.
    """
    text = large_change["threshold"]
    threshold = None if text is None else parse_threshold(text, LARGE_CHANGE_THRESHOLD)
    binding = find_binding(session, passport, binding_id, is_locked=True)
    before = rules_view(session, binding.id)
    session.merge(LargeChange(binding_id=binding.id, enabled=large_change["enabled"], threshold=threshold))
    if adjustment is not None:
        session.merge(Adjustment(binding_id=binding.id, enabled=adjustment["enabled"]))
    if device is not None:
        session.merge(DeviceEdge(binding_id=binding.id, enabled=device["enabled"]))
    session.flush()
    after = rules_view(session, binding.id)
    differing = _differing(before, after)
    if differing:
        event = NotificationRulesChanged(binding_id=binding.id, merchant_id=binding.merchant_id, changes=differing)
        outbox.add(session, event)
    return after


def _differing(before: RulesView, after: RulesView) -> dict[str, dict[str, Any]]:
    values, new_values = _by_name(before), _by_name(after)
    return {
        name: {"before": value, "after": new_values[name]}
        for name, value in values.items()
        if value != new_values[name]
    }


def _by_name(rules: RulesView) -> dict[str, Any]:
    return {
        "large_change.enabled": rules["large_change"]["enabled"],
        LARGE_CHANGE_THRESHOLD: rules["large_change"]["threshold"],
        "adjustment.enabled": rules["adjustment"]["enabled"],
        "device.enabled": rules["device"]["enabled"],
    }
