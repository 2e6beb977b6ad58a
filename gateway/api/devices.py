"""Devices of cards: bind, find, change, block, unbind; their heartbeats and their log."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.devices import (
    BoundCardSchema,
    BoundDeviceSchema,
    DeviceChangeSchema,
    DeviceLogQuery,
    DeviceLogSchema,
    DeviceQuery,
    DeviceSchema,
    HeartbeatSchema,
    HeartbeatsSchema,
    HistoryQuery,
    LogRowsResultSchema,
    NewBindingOfDeviceSchema,
    NewDeviceLogsSchema,
    NewHeartbeatsSchema,
    UnbindQuery,
)
from gateway.terms import body_up_to, needs

LOG_MEGABYTES_MAX = 4  # a thousand rows with all that a row may hold

blueprint = Blueprint("devices", __name__, description="Devices of cards, their heartbeats and their log.")


@blueprint.get("/cards/<card_id>/devices")
@needs("cards:read")
@blueprint.arguments(HistoryQuery, location="query")
@blueprint.listing(BoundDeviceSchema)
def list_card_devices(query: dict[str, Any], card_id: str) -> Listing:
    """List the devices of a card, the newest binding first."""
    return listing("cards", "list_card_devices", card_id=card_id, **query)


@blueprint.post("/cards/<card_id>/devices")
@needs("cards:operate")
@blueprint.arguments(NewBindingOfDeviceSchema)
@blueprint.response(201, BoundDeviceSchema)
def bind_device(body: dict[str, Any], card_id: str) -> Any:
    """Bind a device to a card."""
    return call("cards", "bind_device", card_id=card_id, **body)


@blueprint.get("/devices")
@needs("cards:read")
@blueprint.arguments(DeviceQuery, location="query")
@blueprint.listing(DeviceSchema)
def list_devices(query: dict[str, Any]) -> Listing:
    """List devices, newest first."""
    return listing("cards", "list_devices", **query)


@blueprint.post("/devices/heartbeats")
@needs("cards:operate")
@blueprint.arguments(NewHeartbeatsSchema)
@blueprint.response(200, HeartbeatsSchema)
def hear_devices(body: dict[str, Any]) -> Any:
    """Take the heartbeats of up to 1 000 devices of a fleet."""
    return call("cards", "hear_devices", **body)


@blueprint.get("/devices/<device_id>")
@needs("cards:read")
@blueprint.response(200, DeviceSchema)
def get_device(device_id: str) -> Any:
    """Show one device."""
    return call("cards", "get_device", device_id=device_id)


@blueprint.patch("/devices/<device_id>")
@needs("cards:operate")
@blueprint.arguments(DeviceChangeSchema)
@blueprint.response(200, DeviceSchema)
def update_device(body: dict[str, Any], device_id: str) -> Any:
    """Change a device's name or platform, block it or unblock it."""
    return call("cards", "update_device", device_id=device_id, **body)


@blueprint.delete("/devices/<device_id>")
@needs("cards:operate")
@blueprint.arguments(UnbindQuery, location="query")
@blueprint.response(200, DeviceSchema)
def unbind_device(query: dict[str, Any], device_id: str) -> Any:
    """Unbind a device from one of its cards, or from all; the device and its history stay."""
    return call("cards", "unbind_device", device_id=device_id, **query)


@blueprint.get("/devices/<device_id>/cards")
@needs("cards:read")
@blueprint.arguments(HistoryQuery, location="query")
@blueprint.listing(BoundCardSchema)
def list_device_cards(query: dict[str, Any], device_id: str) -> Listing:
    """List the cards of a device, the newest binding first."""
    return listing("cards", "list_device_cards", device_id=device_id, **query)


@blueprint.post("/devices/<device_id>/heartbeat")
@needs("cards:operate")
@blueprint.response(200, HeartbeatSchema)
def hear_device(device_id: str) -> Any:
    """Take a device's heartbeat."""
    return call("cards", "hear_device", device_id=device_id)


@blueprint.get("/device-logs")
@needs("cards:read")
@blueprint.arguments(DeviceLogQuery, location="query")
@blueprint.listing(DeviceLogSchema)
def list_device_logs(query: dict[str, Any]) -> Listing:
    """List what devices did and what was done to them, newest first."""
    return listing("cards", "list_device_logs", **query)


@blueprint.post("/devices/<device_id>/logs")
@needs("cards:operate")
@body_up_to(megabytes=LOG_MEGABYTES_MAX)
@blueprint.arguments(NewDeviceLogsSchema)
@blueprint.response(200, LogRowsResultSchema)
def store_device_logs(body: dict[str, Any], device_id: str) -> Any:
    """Take up to 1 000 rows of a device's log, each once by its event id, in any order."""
    return call("cards", "store_device_logs", device_id=device_id, **body)
