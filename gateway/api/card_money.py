"""A card's money: top-ups and withdrawals, its balance and its log."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.base import PageQuery
from gateway.schemas.card_money import CardAmountSchema, CardBalanceSchema, CardLogQuery, CardTransferSchema
from gateway.schemas.ledger import EntrySchema
from gateway.terms import moves_money, needs

blueprint = Blueprint("card_money", __name__, description="The money of virtual cards.")


@blueprint.post("/cards/<card_id>/top-up")
@needs("cards:operate")
@moves_money
@blueprint.arguments(CardAmountSchema)
@blueprint.response(201, CardTransferSchema)
def top_up_card(body: dict[str, Any], card_id: str) -> Any:
    """Move money from the account of the card's merchant to the card. 503 while the outcome is not known yet."""
    return call("cards", "top_up_card", card_id=card_id, **body)


@blueprint.post("/cards/<card_id>/withdraw")
@needs("cards:operate")
@moves_money
@blueprint.arguments(CardAmountSchema)
@blueprint.response(201, CardTransferSchema)
def withdraw_from_card(body: dict[str, Any], card_id: str) -> Any:
    """Move money from the card back to its merchant's account. 503 while the outcome is not known yet."""
    return call("cards", "withdraw_from_card", card_id=card_id, **body)


@blueprint.get("/cards/<card_id>/transfers")
@needs("cards:read")
@blueprint.arguments(PageQuery, location="query")
@blueprint.listing(CardTransferSchema)
def list_card_transfers(query: dict[str, Any], card_id: str) -> Listing:
    """List a card's top-ups and withdrawals, newest first, those under way and refused ones too."""
    return listing("cards", "list_card_transfers", card_id=card_id, **query)


@blueprint.get("/cards/<card_id>/balance")
@needs("cards:read")
@blueprint.response(200, CardBalanceSchema)
def get_card_balance(card_id: str) -> Any:
    """Show what the ledger has on a card."""
    return call("cards", "get_card_balance", card_id=card_id)


@blueprint.get("/cards/<card_id>/balance-logs")
@needs("cards:read")
@blueprint.arguments(CardLogQuery, location="query")
@blueprint.listing(EntrySchema)
def list_card_balance_logs(query: dict[str, Any], card_id: str) -> Listing:
    """List every change of a card's balance, newest first."""
    return listing("cards", "list_card_balance_logs", card_id=card_id, **query)
