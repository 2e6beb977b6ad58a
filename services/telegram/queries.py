"""Reads of telegram. Each is cut to the caller's merchants here, in SQL."""

from typing import Any

from sqlalchemy import ColumnElement, Select, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from services.telegram.models import Adjustment, Binding, DeviceEdge, LargeChange, Notification
from shared.contracts.telegram import (
    BindingNotFound,
    BindingPage,
    NotificationNotFound,
    NotificationPage,
    NotificationView,
    RulesView,
)
from shared.paging import InvalidCursor, decode_cursor, encode_cursor
from shared.passport import Passport


def find_binding(session: Session, passport: Passport, binding_id: str, *, is_locked: bool = False) -> Binding:
    """Return a binding that the caller may see. Raises: BindingNotFound."""
    query = select(Binding).where(Binding.id == binding_id, _visible(passport, Binding.merchant_id))
    binding = session.scalar(query.with_for_update() if is_locked else query)
    if binding is None:
        raise BindingNotFound
    return binding


def find_notification(
    session: Session, passport: Passport, notification_id: str, *, is_locked: bool = False
) -> Notification:
    """Return a notification that the caller may see. Raises: NotificationNotFound."""
    is_it = Notification.id == notification_id
    query = select(Notification).where(is_it, _visible(passport, Notification.merchant_id))
    notification = session.scalar(query.with_for_update() if is_locked else query)
    if notification is None:
        raise NotificationNotFound
    return notification


def list_bindings(
    session: Session,
    passport: Passport,
    *,
    merchant_id: str | None = None,
    status: str | None = None,
    limit: int,
    cursor: str | None = None,
) -> BindingPage:
    """Return the bindings that fit all filters, newest first. Raises: InvalidCursor."""
    query = _filtered(select(Binding), merchant_id=merchant_id, status=status)
    rows, next_cursor = _page(session, passport, query, Binding, limit=limit, cursor=cursor)
    return {"items": [binding.view() for binding in rows], "next_cursor": next_cursor}


def get_rules(session: Session, passport: Passport, *, binding_id: str) -> RulesView:
    """Return the rules of a binding; those that nobody has set are off. Raises: BindingNotFound."""
    binding = find_binding(session, passport, binding_id)
    return rules_view(session, binding.id)


def rules_view(session: Session, binding_id: str) -> RulesView:
    """Return the rules as others may know them."""
    large_change, adjustment = session.get(LargeChange, binding_id), session.get(Adjustment, binding_id)
    device = session.get(DeviceEdge, binding_id)
    return {
        "large_change": large_change.view() if large_change else {"enabled": False, "threshold": None},
        "adjustment": adjustment.view() if adjustment else {"enabled": False},
        "device": device.view() if device else {"enabled": False},
    }


def get_notification(session: Session, passport: Passport, *, notification_id: str) -> NotificationView:
    """Return one notification. Raises: NotificationNotFound."""
    return find_notification(session, passport, notification_id).view()


def list_notifications(
    session: Session,
    passport: Passport,
    *,
    merchant_id: str | None = None,
    binding_id: str | None = None,
    type: str | None = None,
    status: str | None = None,
    limit: int,
    cursor: str | None = None,
) -> NotificationPage:
    """Return the notifications that fit all filters, newest first. Raises: InvalidCursor."""
    query = _filtered(select(Notification), merchant_id=merchant_id, binding_id=binding_id, type=type, status=status)
    rows, next_cursor = _page(session, passport, query, Notification, limit=limit, cursor=cursor)
    return {"items": [notification.view() for notification in rows], "next_cursor": next_cursor}


def _visible(passport: Passport, merchant_id: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    merchants = passport.merchant_filter()
    return true() if merchants is None else merchant_id.in_(merchants)


def _filtered(query: Select[Any], **exact: str | None) -> Select[Any]:
    return query.filter_by(**{name: value for name, value in exact.items() if value is not None})


def _page(
    session: Session,
    passport: Passport,
    query: Select[Any],
    table: type[Binding] | type[Notification],
    *,
    limit: int,
    cursor: str | None,
) -> tuple[list[Any], str | None]:
    query = query.where(_visible(passport, table.merchant_id))
    if cursor:
        [position] = decode_cursor(cursor, length=1)
        if not isinstance(position, str):
            raise InvalidCursor.of_field("cursor", InvalidCursor.title)
        query = query.where(table.id < position)
    rows = list(session.scalars(query.order_by(table.id.desc()).limit(limit + 1)))
    next_cursor = encode_cursor([rows[limit - 1].id]) if len(rows) > limit else None
    return rows[:limit], next_cursor
