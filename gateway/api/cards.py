"""Virtual cards: make, find, freeze."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.base import ReasonSchema
from gateway.schemas.cards import CardQuery, CardSchema, NewCardSchema
from gateway.terms import needs

blueprint = Blueprint("cards", __name__, description="Virtual cards.")


@blueprint.get("/cards")
@needs("cards:read")
@blueprint.arguments(CardQuery, location="query")
@blueprint.listing(CardSchema)
def list_cards(query: dict[str, Any]) -> Listing:
    """List cards, newest first."""
    return listing("cards", "list_cards", **query)


@blueprint.post("/cards")
@needs("cards:operate")
@blueprint.arguments(NewCardSchema)
@blueprint.response(201, CardSchema)
def create_card(body: dict[str, Any]) -> Any:
    """Create a card, inactive, from a number or a BIN."""
    return call("cards", "create_card", **body)


@blueprint.get("/cards/<card_id>")
@needs("cards:read")
@blueprint.response(200, CardSchema)
def get_card(card_id: str) -> Any:
    """Show one card."""
    return call("cards", "get_card", card_id=card_id)


@blueprint.post("/cards/<card_id>/freeze")
@needs("cards:operate")
@blueprint.arguments(ReasonSchema)
@blueprint.response(200, CardSchema)
def freeze_card(body: dict[str, Any], card_id: str) -> Any:
    """Freeze a card, so that it cannot be used until it is unfrozen."""
    return call("cards", "freeze_card", card_id=card_id, **body)
