"""Virtual cards: make, find, activate, freeze, close, give to merchants, reveal."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.base import PageQuery, ReasonSchema
from gateway.schemas.cards import (
    AssignmentSchema,
    BulkAssignedSchema,
    BulkAssignmentSchema,
    CardChangeSchema,
    CardListSchema,
    CardMerchantSchema,
    CardNumberSchema,
    CardQuery,
    CardSchema,
    NewCardSchema,
    RevealedCardSchema,
)
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


@blueprint.post("/cards/search")
@needs("cards:read")
@blueprint.arguments(CardNumberSchema)
@blueprint.response(200, CardListSchema)
def search_card(body: dict[str, Any]) -> Any:
    """Find the card with exactly this full number, which is sent in the body so that no address or log shows it."""
    return call("cards", "search_card", **body)


@blueprint.post("/cards/assign")
@needs("cards:operate")
@blueprint.arguments(BulkAssignmentSchema)
@blueprint.response(200, BulkAssignedSchema)
def assign_cards(body: dict[str, Any]) -> Any:
    """Give up to 1 000 cards to a merchant: all of them, or none."""
    return call("cards", "assign_cards", **body)


@blueprint.get("/cards/<card_id>")
@needs("cards:read")
@blueprint.response(200, CardSchema)
def get_card(card_id: str) -> Any:
    """Show one card."""
    return call("cards", "get_card", card_id=card_id)


@blueprint.patch("/cards/<card_id>")
@needs("cards:operate")
@blueprint.arguments(CardChangeSchema)
@blueprint.response(200, CardSchema)
def update_card(body: dict[str, Any], card_id: str) -> Any:
    """Change a card's holder name, expiry or limits."""
    return call("cards", "update_card", card_id=card_id, **body)


@blueprint.post("/cards/<card_id>/activate")
@needs("cards:operate")
@blueprint.response(200, CardSchema)
def activate_card(card_id: str) -> Any:
    """Activate a card, so that it can be used."""
    return call("cards", "activate_card", card_id=card_id)


@blueprint.post("/cards/<card_id>/freeze")
@needs("cards:operate")
@blueprint.arguments(ReasonSchema)
@blueprint.response(200, CardSchema)
def freeze_card(body: dict[str, Any], card_id: str) -> Any:
    """Freeze a card, so that it cannot be used until it is unfrozen."""
    return call("cards", "freeze_card", card_id=card_id, **body)


@blueprint.post("/cards/<card_id>/unfreeze")
@needs("cards:operate")
@blueprint.response(200, CardSchema)
def unfreeze_card(card_id: str) -> Any:
    """Unfreeze a card."""
    return call("cards", "unfreeze_card", card_id=card_id)


@blueprint.post("/cards/<card_id>/close")
@needs("cards:operate")
@blueprint.arguments(ReasonSchema)
@blueprint.response(200, CardSchema)
def close_card(body: dict[str, Any], card_id: str) -> Any:
    """Close a card for good; one with money in it does not close."""
    return call("cards", "close_card", card_id=card_id, **body)


@blueprint.put("/cards/<card_id>/merchant")
@needs("cards:operate")
@blueprint.arguments(CardMerchantSchema)
@blueprint.response(200, CardSchema)
def assign_card(body: dict[str, Any], card_id: str) -> Any:
    """Give a card to a merchant, or with null take it off its merchant."""
    return call("cards", "assign_card", card_id=card_id, **body)


@blueprint.get("/cards/<card_id>/assignments")
@needs("cards:read")
@blueprint.arguments(PageQuery, location="query")
@blueprint.listing(AssignmentSchema)
def list_assignments(query: dict[str, Any], card_id: str) -> Listing:
    """List which merchants held a card when, the present one first."""
    return listing("cards", "list_assignments", card_id=card_id, **query)


@blueprint.post("/cards/<card_id>/reveal")
@needs("cards:admin")
@blueprint.arguments(ReasonSchema)
@blueprint.response(200, RevealedCardSchema)
def reveal_card(body: dict[str, Any], card_id: str) -> Any:
    """Show a card's full number, once for each request; who saw it and why stands in the log."""
    return call("cards", "reveal_card", card_id=card_id, **body)
