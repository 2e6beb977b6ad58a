"""Routes that only the tests of the framework have, so that they depend on no service's nouns."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas import fields
from gateway.schemas.base import PageQuery, ReasonSchema, Schema
from gateway.terms import body_up_to, moves_money, needs, open_to_expired_password, public, signed_in, within

blueprint = Blueprint("lamps", __name__, description="Lamps, for tests.")


class LampSchema(Schema):
    """A lamp."""

    id = fields.Text(required=True)
    name = fields.Text(required=True)
    amount = fields.Money(required=True)
    currency = fields.Currency(required=True)
    bulbs = fields.List(fields.Nested(Schema.from_dict({"watts": fields.Integer()}, name="BulbSchema")))


class NewLampSchema(Schema):
    """A lamp to make."""

    name = fields.Text(required=True, length_min=1, length_max=20)
    amount = fields.Money(required=True)
    currency = fields.Currency(required=True)
    watts = fields.Integer(at_least=1)
    is_lit = fields.Boolean()
    lit_at = fields.Timestamp()
    merchant_id = fields.Identifier()


class LampQuery(PageQuery):
    """Which lamps."""

    name = fields.Text()
    is_lit = fields.QueryBoolean()
    day = fields.Day(data_key="date")


@blueprint.get("/lamps")
@needs("cards:read")
@blueprint.arguments(LampQuery, location="query")
@blueprint.listing(LampSchema)
def list_lamps(query: dict[str, Any]) -> Listing:
    """List lamps, newest first."""
    return listing("cards", "list_lamps", **query)


@blueprint.post("/lamps")
@needs("cards:operate")
@moves_money
@body_up_to(megabytes=2)
@blueprint.arguments(NewLampSchema)
@blueprint.response(201, LampSchema)
def create_lamp(body: dict[str, Any]) -> Any:
    """Make a lamp."""
    return call("cards", "create_lamp", **body)


@blueprint.post("/lamps/<lamp_id>/break")
@needs("cards:admin")
@within(seconds=60)
@blueprint.arguments(ReasonSchema)
@blueprint.response(200, LampSchema)
def break_lamp(body: dict[str, Any], lamp_id: str) -> Any:
    """Break a lamp."""
    return call("cards", "break_lamp", lamp_id=lamp_id, **body)


@blueprint.post("/lamps/<lamp_id>/light")
@needs("cards:operate")
@blueprint.response(200, LampSchema)
def light_lamp(lamp_id: str) -> Any:
    """Light a lamp."""
    return call("cards", "light_lamp", lamp_id=lamp_id)


@blueprint.delete("/lamps/<lamp_id>")
@needs("cards:admin")
@blueprint.response(204)
def delete_lamp(lamp_id: str) -> None:
    """Take a lamp away."""
    call("cards", "delete_lamp", lamp_id=lamp_id)


@blueprint.get("/lamps/mine")
@signed_in
@blueprint.response(200, LampSchema)
def show_my_lamp() -> Any:
    """Show one's own lamp."""
    return call("users", "show_my_lamp")


@blueprint.post("/lamps/password")
@signed_in
@open_to_expired_password
@blueprint.response(204)
def change_lamp_password() -> None:
    """Change a lamp's password."""
    call("users", "change_lamp_password")


@blueprint.post("/lamps/public")
@public
@blueprint.response(200, LampSchema)
def touch_lamp() -> Any:
    """Touch a lamp that stands in the street."""
    return call("cards", "touch_lamp")


@blueprint.get("/lamps/bug")
@public
@blueprint.response(200, LampSchema)
def show_bug() -> Any:
    """Fail, as only a mistake of ours does."""
    raise RuntimeError("select * from secrets where password = 'hunter2'")
