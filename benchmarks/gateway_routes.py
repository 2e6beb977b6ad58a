"""The routes that the benchmark adds to the gateway."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.rpc import call
from gateway.schemas import fields
from gateway.schemas.base import Schema
from gateway.terms import signed_in

blueprint = Blueprint("probe", __name__, description="What the benchmark calls.", url_prefix="")


class RowSchema(Schema):
    """A row."""

    id = fields.Integer(required=True)


@blueprint.get("/noop")
@signed_in
@blueprint.response(200, RowSchema)
def noop() -> Any:
    """Go to a service and back."""
    return call("users", "noop")


@blueprint.post("/insert")
@signed_in
@blueprint.response(200, RowSchema)
def insert() -> Any:
    """Have a service insert a row."""
    return call("users", "insert")
