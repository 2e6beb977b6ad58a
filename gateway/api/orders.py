"""Orders: made, settled, failed, refunded."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.orders import (
    FailureSchema,
    NewOrderSchema,
    OrderDetailSchema,
    OrderQuery,
    OrderSchema,
    RefundSchema,
    SettlementSchema,
)
from gateway.terms import moves_money, needs

blueprint = Blueprint("orders", __name__, description="Orders, and the money that they hold and move.")


@blueprint.get("/orders")
@needs("orders:read")
@blueprint.arguments(OrderQuery, location="query")
@blueprint.listing(OrderSchema)
def list_orders(query: dict[str, Any]) -> Listing:
    """List orders, newest first."""
    return listing("ledger", "list_orders", **query)


@blueprint.post("/orders")
@needs("orders:operate")
@moves_money
@blueprint.arguments(NewOrderSchema)
@blueprint.response(201, OrderSchema)
def create_order(body: dict[str, Any]) -> Any:
    """Create an order; a purchase, a renewal or a withdrawal holds its money until it settles or fails."""
    return call("ledger", "create_order", **body)


@blueprint.get("/orders/<order_no>")
@needs("orders:read")
@blueprint.response(200, OrderDetailSchema)
def get_order(order_no: str) -> Any:
    """Show an order with its rows of the balance log and its history."""
    return call("ledger", "get_order", order_no=order_no)


@blueprint.post("/orders/<order_no>/settle")
@needs("orders:operate")
@moves_money
@blueprint.arguments(SettlementSchema)
@blueprint.response(200, OrderSchema)
def settle_order(body: dict[str, Any], order_no: str) -> Any:
    """Settle an order, so that its money moves; settling it again changes nothing."""
    return call("ledger", "settle_order", order_no=order_no, **body)


@blueprint.post("/orders/<order_no>/fail")
@needs("orders:operate")
@moves_money
@blueprint.arguments(FailureSchema)
@blueprint.response(200, OrderSchema)
def fail_order(body: dict[str, Any], order_no: str) -> Any:
    """Fail a pending order, so that what it held is free; failing it again changes nothing."""
    return call("ledger", "fail_order", order_no=order_no, **body)


@blueprint.post("/orders/<order_no>/refund")
@needs("orders:operate")
@moves_money
@blueprint.arguments(RefundSchema)
@blueprint.response(200, OrderSchema)
def refund_order(body: dict[str, Any], order_no: str) -> Any:
    """Refund a settled order, an amount of it or all that is left; never more than was paid."""
    return call("ledger", "refund_order", order_no=order_no, **body)
