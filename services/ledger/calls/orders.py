"""Calls about orders: make, settle, fail, refund, read them."""

from typing import Any

from sqlalchemy.orm import Session

from services.ledger.calls.dependencies import LedgerDependencies
from services.ledger.queries import orders as queries
from services.ledger.usecases import orders
from services.ledger.usecases.postings import FIRST_TIME
from shared.contracts.ledger import OrderDetailView, OrderPage, OrderView
from shared.passport import Passport
from shared.rpc.entrypoints import command, query


class OrderCalls(LedgerDependencies):
    """Orders."""

    @command("orders:operate")
    def create_order(self, session: Session, passport: Passport, **order: Any) -> OrderView:
        return orders.create_order(session, passport, default_fee_percent=self.fee_percent(), **order)

    @command("orders:operate")
    def settle_order(
        self, session: Session, passport: Passport, *, order_no: str, upstream_ref: str | None = None
    ) -> OrderView:
        return orders.settle_order(
            session, passport, order_no=order_no, upstream_ref=upstream_ref, threshold=self.threshold()
        )

    @command("orders:operate")
    def fail_order(
        self, session: Session, passport: Passport, *, order_no: str, reason: str | None = None
    ) -> OrderView:
        return orders.fail_order(session, passport, order_no=order_no, reason=reason)

    @command("orders:operate")
    def refund_order(
        self, session: Session, passport: Passport, *, order_no: str, reason: str, amount: str | None = None
    ) -> OrderView:
        return orders.refund_order(
            session, passport, order_no=order_no, reason=reason, amount=amount, threshold=self.threshold()
        )

    @query("orders:read")
    def get_order(self, session: Session, passport: Passport, *, order_no: str) -> OrderDetailView:
        return queries.get_order(session, passport, order_no=order_no)

    @query("orders:read")
    def list_orders(
        self,
        session: Session,
        passport: Passport,
        *,
        limit: int,
        cursor: str | None = None,
        kind: str | None = None,
        status: str | None = None,
        channel: str | None = None,
        from_time: str | None = None,
        **filters: Any,
    ) -> OrderPage:
        wanted = self.log_filter(from_time=from_time or FIRST_TIME, **filters)
        return queries.list_orders(
            session, passport, wanted, kind=kind, status=status, channel=channel, limit=limit, cursor=cursor
        )
