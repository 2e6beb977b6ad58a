"""Telegram: merchants bound to groups, what each group is told, and the delivery log."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.telegram import (
    BindingChangesSchema,
    BindingQuery,
    BindingSchema,
    NewBindingSchema,
    NotificationQuery,
    NotificationSchema,
    RulesSchema,
)
from gateway.terms import needs

blueprint = Blueprint("telegram", __name__, description="Merchants' Telegram groups and what they are told.")


@blueprint.get("/telegram/bindings")
@needs("telegram:read")
@blueprint.arguments(BindingQuery, location="query")
@blueprint.listing(BindingSchema)
def list_bindings(query: dict[str, Any]) -> Listing:
    """List bindings, newest first."""
    return listing("telegram", "list_bindings", **query)


@blueprint.post("/telegram/bindings")
@needs("telegram:operate")
@blueprint.arguments(NewBindingSchema)
@blueprint.response(201, BindingSchema)
def create_binding(body: dict[str, Any]) -> Any:
    """Bind a merchant to a group; its rules are off at first."""
    return call("telegram", "create_binding", **body)


@blueprint.patch("/telegram/bindings/<binding_id>")
@needs("telegram:operate")
@blueprint.arguments(BindingChangesSchema)
@blueprint.response(200, BindingSchema)
def update_binding(body: dict[str, Any], binding_id: str) -> Any:
    """Change a binding's title, language or status."""
    return call("telegram", "update_binding", binding_id=binding_id, changes=body)


@blueprint.delete("/telegram/bindings/<binding_id>")
@needs("telegram:operate")
@blueprint.response(204)
def delete_binding(binding_id: str) -> None:
    """Unbind a merchant from a group; what still waits for it is suppressed."""
    call("telegram", "delete_binding", binding_id=binding_id)


@blueprint.get("/telegram/bindings/<binding_id>/rules")
@needs("telegram:read")
@blueprint.response(200, RulesSchema)
def get_rules(binding_id: str) -> Any:
    """Show what a group is told."""
    return call("telegram", "get_rules", binding_id=binding_id)


@blueprint.put("/telegram/bindings/<binding_id>/rules")
@needs("telegram:operate")
@blueprint.arguments(RulesSchema)
@blueprint.response(200, RulesSchema)
def change_rules(body: dict[str, Any], binding_id: str) -> Any:
    """Set what a group is told."""
    return call("telegram", "change_rules", binding_id=binding_id, **body)


@blueprint.post("/telegram/bindings/<binding_id>/test")
@needs("telegram:operate")
@blueprint.response(202, NotificationSchema)
def send_test(binding_id: str) -> Any:
    """Queue a test message to a group; the notification tells what became of it."""
    return call("telegram", "send_test", binding_id=binding_id)


@blueprint.get("/telegram/notifications")
@needs("telegram:read")
@blueprint.arguments(NotificationQuery, location="query")
@blueprint.listing(NotificationSchema)
def list_notifications(query: dict[str, Any]) -> Listing:
    """List notifications, newest first."""
    return listing("telegram", "list_notifications", **query)


@blueprint.get("/telegram/notifications/<notification_id>")
@needs("telegram:read")
@blueprint.response(200, NotificationSchema)
def get_notification(notification_id: str) -> Any:
    """Show one notification."""
    return call("telegram", "get_notification", notification_id=notification_id)


@blueprint.post("/telegram/notifications/<notification_id>/retry")
@needs("telegram:operate")
@blueprint.response(200, NotificationSchema)
def retry_notification(notification_id: str) -> Any:
    """Put a notification that was not sent back into the queue."""
    return call("telegram", "retry_notification", notification_id=notification_id)
