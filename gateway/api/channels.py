"""Channels: the payment platforms that orders are paid through."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.channels import ChannelChangeSchema, ChannelQuery, ChannelSchema, NewChannelSchema
from gateway.terms import needs

blueprint = Blueprint("channels", __name__, description="Payment platforms, and how each is spoken to.")


@blueprint.get("/channels")
@needs("settings:read")
@blueprint.arguments(ChannelQuery, location="query")
@blueprint.listing(ChannelSchema)
def list_channels(query: dict[str, Any]) -> Listing:
    """List channels, newest first."""
    return listing("ledger", "list_channels", **query)


@blueprint.post("/channels")
@needs("settings:admin")
@blueprint.arguments(NewChannelSchema)
@blueprint.response(201, ChannelSchema)
def create_channel(body: dict[str, Any]) -> Any:
    """Register a channel; its secrets are sealed and never shown again."""
    return call("ledger", "create_channel", **body)


@blueprint.get("/channels/<code>")
@needs("settings:read")
@blueprint.response(200, ChannelSchema)
def get_channel(code: str) -> Any:
    """Show a channel."""
    return call("ledger", "get_channel", code=code)


@blueprint.patch("/channels/<code>")
@needs("settings:admin")
@blueprint.arguments(ChannelChangeSchema)
@blueprint.response(200, ChannelSchema)
def update_channel(body: dict[str, Any], code: str) -> Any:
    """Change a channel, with a reason; of its configuration only the fields that are named."""
    return call("ledger", "update_channel", code=code, **body)
