"""A card's timeline."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.schemas.card_timelines import CardEventSchema, TimelineQuery
from gateway.terms import needs

blueprint = Blueprint("card_timelines", __name__, description="What happened to a card.")


@blueprint.get("/cards/<card_id>/timeline")
@needs("cards:read")
@blueprint.arguments(TimelineQuery, location="query")
@blueprint.listing(CardEventSchema)
def list_card_timeline(query: dict[str, Any], card_id: str) -> Listing:
    """List what happened to a card: status, balance, devices, merchants, limits, reveals; the latest first."""
    return listing("cards", "list_card_timeline", card_id=card_id, **query)
