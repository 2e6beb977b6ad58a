"""Calls that explain: why a balance, why a refusal, how a fee."""

from typing import Any

from sqlalchemy.orm import Session

from services.ledger.calls.dependencies import LedgerDependencies
from services.ledger.queries import explanations
from shared.contracts.explanations import (
    BalanceExplanation,
    ChangeExplanation,
    FeeExplanation,
    RefusalExplanation,
)
from shared.passport import Passport
from shared.rpc.entrypoints import query
from shared.times import parse_rfc3339


class ExplanationCalls(LedgerDependencies):
    """Explanations."""

    @query("ledger:read")
    def explain_balance(
        self,
        session: Session,
        passport: Passport,
        *,
        currency: str,
        user_id: str | None = None,
        card_id: str | None = None,
        merchant_id: str | None = None,
        from_time: str | None = None,
        at: str | None = None,
    ) -> BalanceExplanation:
        return explanations.explain_balance(
            session,
            passport,
            user_id=user_id,
            card_id=card_id,
            merchant_id=merchant_id,
            currency=currency,
            from_time=None if from_time is None else parse_rfc3339(from_time),
            at=None if at is None else parse_rfc3339(at),
        )

    @query("ledger:read")
    def explain_change(self, session: Session, passport: Passport, **change: Any) -> ChangeExplanation:
        return explanations.explain_change(session, passport, change=change)

    @query("ledger:read")
    def explain_refusal(self, session: Session, passport: Passport, *, request_id: str) -> RefusalExplanation:
        return explanations.explain_refusal(session, passport, request_id=request_id)

    @query("orders:read")
    def explain_fee(self, session: Session, passport: Passport, *, order_no: str) -> FeeExplanation:
        return explanations.explain_fee(session, passport, order_no=order_no)
