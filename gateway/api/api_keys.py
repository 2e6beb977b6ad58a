"""Keys for programs."""

from typing import Any

from gateway import authorization
from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.base import PageQuery
from gateway.schemas.users import ApiKeySchema, ApiKeyWithSecretSchema, NewApiKeySchema
from gateway.terms import needs

blueprint = Blueprint("api_keys", __name__, description="Keys for programs, sent as Bearer tokens.")


@blueprint.get("/api-keys")
@needs("users:admin")
@blueprint.arguments(PageQuery, location="query")
@blueprint.listing(ApiKeySchema)
def list_api_keys(query: dict[str, Any]) -> Listing:
    """List API keys, newest first, the ended ones included."""
    return listing("users", "list_api_keys", **query)


@blueprint.post("/api-keys")
@needs("users:admin")
@blueprint.arguments(NewApiKeySchema)
@blueprint.response(201, ApiKeyWithSecretSchema)
def create_api_key(body: dict[str, Any]) -> Any:
    """Make a key that holds no more than oneself; its secret is shown this once."""
    return call("users", "create_api_key", **body)


@blueprint.delete("/api-keys/<key_id>")
@needs("users:admin")
@blueprint.response(204)
def revoke_api_key(key_id: str) -> None:
    """End a key."""
    call("users", "revoke_api_key", key_id=key_id)
    authorization.ask_again()
