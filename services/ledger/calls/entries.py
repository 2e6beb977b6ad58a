"""Calls about balances: post changes, read the log, the accounts and the proof."""

from threading import Semaphore
from typing import Any

from sqlalchemy.orm import Session

from services.ledger import verification
from services.ledger.calls.dependencies import LedgerDependencies
from services.ledger.domain.balance_types import BALANCE_TYPES
from services.ledger.gathering import Gatherer
from services.ledger.posting import Outcome, Posting
from services.ledger.queries import entries as queries
from services.ledger.usecases import postings
from shared.contracts.ledger import (
    AccountPage,
    AccountView,
    BalanceTypeView,
    EntryPage,
    SummaryView,
    TrialBalancePage,
    VerificationView,
)
from shared.errors import PermissionDenied
from shared.passport import Passport
from shared.rpc.entrypoints import query, rpc
from shared.rpc.wire import Answer, current_call

BATCHES_AT_ONCE = 2  # while PostgreSQL writes one, Python decides the other; more would only wait in both


class EntryCalls(LedgerDependencies):
    """Accounts, entries, and their proof."""

    gatherer: Gatherer[Posting, Outcome] = Gatherer()  # one a process, for all its workers
    batch_slots = Semaphore(BATCHES_AT_ONCE)

    @rpc("ledger:operate")
    def post_balance_change(self, passport: Passport, **change: Any) -> Answer:
        return postings.post_balance_change(
            self, self.gatherer, current_call.get(), change=change, threshold=self.threshold()
        )

    @rpc("ledger:operate")
    def post_balance_changes(self, passport: Passport, *, changes: Any, atomic: bool = True) -> Answer:
        return postings.post_balance_changes(
            self, self.batch_slots, current_call.get(), changes=changes, is_atomic=atomic, threshold=self.threshold()
        )

    @rpc("ledger:read", is_repeatable=True)
    def list_balance_types(self, passport: Passport) -> list[BalanceTypeView]:
        return [balance_type.view() for balance_type in BALANCE_TYPES.values()]

    @query("ledger:read")
    def list_balance_logs(
        self, session: Session, passport: Passport, *, limit: int, cursor: str | None = None, **filters: Any
    ) -> EntryPage:
        if cursor and all(filters.get(name) is None for name in ("date", "from_time", "to_time")):
            filters["date"] = queries.day_after(cursor, self.zone_name())
        return queries.list_balance_logs(session, passport, self.log_filter(**filters), limit=limit, cursor=cursor)

    @query("ledger:read")
    def summarize_balance_logs(self, session: Session, passport: Passport, **filters: Any) -> SummaryView:
        return queries.summarize_balance_logs(session, passport, self.log_filter(**filters))

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
    def verify_ledger(self, passport: Passport, *, mode: verification.WantedMode = "full") -> VerificationView:
        if passport.merchants is not None:
            raise PermissionDenied("The proof of the ledger is over all merchants.")
        view: VerificationView = self.database.run(lambda session: verification.verify_ledger(session, mode=mode))
        return view
