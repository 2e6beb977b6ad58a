"""Accounts, and the trial balance over all of them."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.ledger import AccountQuery, AccountSchema, TrialBalancesSchema, UserAccountsSchema
from gateway.terms import needs

blueprint = Blueprint("accounts", __name__, description="Accounts and the trial balance.")


@blueprint.get("/accounts")
@needs("ledger:read")
@blueprint.arguments(AccountQuery, location="query")
@blueprint.listing(AccountSchema)
def list_accounts(query: dict[str, Any]) -> Listing:
    """List accounts, the last opened first."""
    return listing("ledger", "list_accounts", **query)


@blueprint.get("/accounts/<user_id>")
@needs("ledger:read")
@blueprint.response(200, UserAccountsSchema)
def list_user_accounts(user_id: str) -> Any:
    """Show a user's accounts, one a currency."""
    return {"items": call("ledger", "list_user_accounts", user_id=user_id), "next_cursor": None}


@blueprint.get("/trial-balance")
@needs("ledger:read")
@blueprint.response(200, TrialBalancesSchema)
def read_trial_balance() -> Any:
    """Show the trial balance: the sum of all accounts, which is zero, and each system account."""
    return call("ledger", "read_trial_balance") | {"next_cursor": None}
