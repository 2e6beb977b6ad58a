"""The ledger as Nameko runs it: what others may call, what it hears, and what it does beside."""

import contextlib
import gc
from collections.abc import Callable, Iterable
from threading import Semaphore
from typing import Any

import structlog
from sqlalchemy.orm import Session

from services.ledger import order_queries, orders, queries, sums, usecases, verification
from services.ledger.domain.balance_types import BALANCE_TYPES
from services.ledger.domain.filters import LogFilter
from services.ledger.domain.thresholds import Threshold
from services.ledger.gathering import Gatherer
from services.ledger.posting import Outcome, Posting
from shared.contracts.ledger import (
    AccountPage,
    AccountView,
    BalanceTypeView,
    EntryPage,
    OrderDetailView,
    OrderPage,
    OrderView,
    SummaryView,
    TrialBalancePage,
    VerificationView,
)
from shared.contracts.settings import ParameterChanged
from shared.contracts.users import MerchantCreated, MerchantUpdated
from shared.copies import Merchants, Parameters
from shared.database import Database
from shared.errors import PermissionDenied
from shared.messaging import handles
from shared.passport import Passport
from shared.rpc.entrypoints import command, query, rpc
from shared.rpc.wire import Answer, current_call
from shared.ticks import every

log = structlog.get_logger(__name__)

# A batch makes hundreds of thousands of objects that hold no rings: at Python's own threshold the collector walks
# all of them again and again, and takes as long as the posting.
GC_OBJECTS_BETWEEN = 200_000
BATCHES_AT_ONCE = 2  # while PostgreSQL writes one, Python decides the other; more would only wait in both
PROOF_SECONDS = 240  # R20: incremental at least each five minutes; the whole proof is the task `balance_check`


class LedgerService:
    """Accounts, entries, orders, and their proof."""

    name = "ledger"

    database = Database()
    parameters = Parameters()
    merchants = Merchants()
    gatherer: Gatherer[Posting, Outcome] = Gatherer()  # one a process, for all its workers
    batch_slots = Semaphore(BATCHES_AT_ONCE)

    @rpc("ledger:operate")
    def post_balance_change(self, passport: Passport, **change: Any) -> Answer:
        return usecases.post_balance_change(
            self, self.gatherer, current_call.get(), change=change, threshold=self._threshold()
        )

    @rpc("ledger:operate")
    def post_balance_changes(self, passport: Passport, *, changes: Any, atomic: bool = True) -> Answer:
        return usecases.post_balance_changes(
            self, self.batch_slots, current_call.get(), changes=changes, is_atomic=atomic, threshold=self._threshold()
        )

    @rpc("ledger:read", is_repeatable=True)
    def list_balance_types(self, passport: Passport) -> list[BalanceTypeView]:
        return [balance_type.view() for balance_type in BALANCE_TYPES.values()]

    @query("ledger:read")
    def list_balance_logs(
        self, session: Session, passport: Passport, *, limit: int, cursor: str | None = None, **filters: Any
    ) -> EntryPage:
        return queries.list_balance_logs(session, passport, self._log_filter(**filters), limit=limit, cursor=cursor)

    @query("ledger:read")
    def summarize_balance_logs(self, session: Session, passport: Passport, **filters: Any) -> SummaryView:
        return queries.summarize_balance_logs(session, passport, self._log_filter(**filters))

    @query("ledger:read")
    def list_accounts(
        self,
        session: Session,
        passport: Passport,
        *,
        limit: int,
        cursor: str | None = None,
        merchant_id: str | None = None,
        user_id: str | None = None,
        holder_type: str | None = None,
        currency: str | None = None,
    ) -> AccountPage:
        return queries.list_accounts(
            session,
            passport,
            merchant_id=merchant_id,
            user_id=user_id,
            holder_type=holder_type,
            currency=currency,
            limit=limit,
            cursor=cursor,
        )

    @query("ledger:read")
    def list_user_accounts(self, session: Session, passport: Passport, *, user_id: str) -> list[AccountView]:
        return queries.list_user_accounts(session, passport, user_id=user_id)

    @query("ledger:read")
    def read_trial_balance(self, session: Session, passport: Passport) -> TrialBalancePage:
        return queries.read_trial_balance(session, passport)

    @rpc("ledger:read", is_repeatable=True)
    def verify_ledger(self, passport: Passport, *, mode: verification.Mode = "full") -> VerificationView:
        if passport.merchants is not None:
            raise PermissionDenied("The proof of the ledger is over all merchants.")
        view: VerificationView = self.database.run(lambda session: verification.verify_ledger(session, mode=mode))
        return view

    @command("orders:operate")
    def create_order(self, session: Session, passport: Passport, **order: Any) -> OrderView:
        return orders.create_order(session, passport, **order)

    @command("orders:operate")
    def settle_order(
        self, session: Session, passport: Passport, *, order_no: str, upstream_ref: str | None = None
    ) -> OrderView:
        return orders.settle_order(
            session, passport, order_no=order_no, upstream_ref=upstream_ref, threshold=self._threshold()
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
            session, passport, order_no=order_no, reason=reason, amount=amount, threshold=self._threshold()
        )

    @query("orders:read")
    def get_order(self, session: Session, passport: Passport, *, order_no: str) -> OrderDetailView:
        return order_queries.get_order(session, passport, order_no=order_no)

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
        wanted = self._log_filter(from_time=from_time or usecases.FIRST_TIME, **filters)
        return order_queries.list_orders(
            session, passport, wanted, kind=kind, status=status, channel=channel, limit=limit, cursor=cursor
        )

    @handles(ParameterChanged)
    def on_parameter_changed(self, session: Session, envelope: Any, event: ParameterChanged) -> None:
        self.parameters.take(session, event)

    @handles(MerchantCreated, MerchantUpdated)
    def on_merchant_changed(self, session: Session, envelope: Any, event: MerchantCreated | MerchantUpdated) -> None:
        self.merchants.take(session, event)

    @every(seconds=1)
    def fold_deltas(self) -> None:
        while self.database.run(sums.fold_deltas) == sums.FOLD_ROWS:
            pass

    @every(seconds=300)
    def create_partitions(self) -> None:
        self.database.run(sums.create_partitions)

    @every(seconds=PROOF_SECONDS)
    def prove_new_entries(self) -> None:
        with contextlib.suppress(verification.VerificationRunning):
            view = self.database.run(lambda session: verification.verify_ledger(session, mode="incremental"))
            if not view["ok"]:
                log.error("the ledger is not proved", faults=view["faults"])

    def run(self, work: Callable[[Session], Any]) -> Any:
        """Do work in a transaction."""
        return self.database.run(work)

    def wake_relay(self) -> None:
        """Say that there are events to carry."""
        self.database.relay.wake()

    def ensure_merchants(self, merchant_ids: Iterable[str]) -> None:
        """Make sure that merchants exist. Raises: MerchantNotFound."""
        self.merchants.ensure(merchant_ids)

    def _threshold(self) -> Threshold:
        return Threshold(str(self.parameters.get("ledger.large_change_threshold")))

    def _log_filter(
        self,
        *,
        date: str | None = None,
        from_time: str | None = None,
        to_time: str | None = None,
        type: list[str | int] | None = None,
        group: list[str] | None = None,
        user_id: str | None = None,
        holder_type: str | None = None,
        order_no: str | None = None,
        merchant_id: str | None = None,
        currency: str | None = None,
        min_amount: str | None = None,
        max_amount: str | None = None,
    ) -> LogFilter:
        return usecases.log_filter(
            zone_name=str(self.parameters.get("system.timezone")),
            date_text=date,
            from_time=from_time,
            to_time=to_time,
            types=type or [],
            groups=group or [],
            user_id=user_id,
            holder_type=holder_type,
            order_no=order_no,
            merchant_id=merchant_id,
            currency=currency,
            min_amount=min_amount,
            max_amount=max_amount,
        )


gc.set_threshold(GC_OBJECTS_BETWEEN, 20, 50)
