"""The public keys at the place where RFC 8615 has programs look for them, beside the one below `/api/v1`."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.rpc import call
from gateway.schemas.auth import SigningKeysSchema
from gateway.terms import public

blueprint = Blueprint("well_known", __name__, description="What programs look for at the root.", url_prefix="")


@blueprint.get("/.well-known/jwks.json")
@public
@blueprint.response(200, SigningKeysSchema)
def list_signing_keys() -> Any:
    """List the public keys by which access tokens can be checked."""
    return call("users", "get_signing_keys")
