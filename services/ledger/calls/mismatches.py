"""Calls about mismatches: read them, close and reopen them, correct them, and reverse that."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy.orm import Session

from services.ledger.calls.dependencies import LedgerDependencies
from services.ledger.domain.days import check_day
from services.ledger.domain.filters import amount_of_any_currency
from services.ledger.domain.mismatches import Verb
from services.ledger.queries import corrections as correction_queries
from services.ledger.queries import mismatches as queries
from services.ledger.queries.mismatches import MismatchFilter
from services.ledger.usecases import corrections, mismatches
from services.ledger.usecases.correction_sides import NO_TERMS, NewOrder, Terms
from services.ledger.usecases.mismatch_batches import Batch, alone
from shared.contracts.mismatches import (
    BulkView,
    CorrectionPage,
    CorrectionPreview,
    CorrectionView,
    MismatchDetailView,
    MismatchGroupPage,
    MismatchPage,
)
from shared.errors import InvalidRequest
from shared.passport import Passport
from shared.rpc.entrypoints import command, query
from shared.times import parse_rfc3339

ADMIN_PERMISSION = "mismatches:admin"
_ACTS_OF_ADMINS = frozenset({"correct", "approve", "reject"})


class MismatchCalls(LedgerDependencies):
    """Mismatches and their corrections."""

    @query("mismatches:read")
    def list_mismatches(
        self, session: Session, passport: Passport, *, limit: int, cursor: str | None = None, **filters: Any
    ) -> MismatchPage:
        return queries.list_mismatches(session, passport, mismatch_filter(**filters), limit=limit, cursor=cursor)

    @query("mismatches:read")
    def list_mismatch_groups(
        self, session: Session, passport: Passport, *, limit: int, cursor: str | None = None, **filters: Any
    ) -> MismatchGroupPage:
        return queries.list_mismatch_groups(session, passport, mismatch_filter(**filters), limit=limit, cursor=cursor)

    @query("mismatches:read")
    def get_mismatch(self, session: Session, passport: Passport, *, mismatch_id: str) -> MismatchDetailView:
        return queries.get_mismatch(session, passport, mismatch_id=mismatch_id)

    @command("mismatches:operate")
    def reconcile_mismatch(
        self, session: Session, passport: Passport, *, mismatch_id: str, reason: str
    ) -> MismatchDetailView:
        return self._act_on_one(session, passport, mismatch_id, Verb.RECONCILE, reason)

    @command("mismatches:operate")
    def ignore_mismatch(
        self, session: Session, passport: Passport, *, mismatch_id: str, reason: str
    ) -> MismatchDetailView:
        return self._act_on_one(session, passport, mismatch_id, Verb.IGNORE, reason)

    @command("mismatches:operate")
    def reopen_mismatch(
        self, session: Session, passport: Passport, *, mismatch_id: str, reason: str
    ) -> MismatchDetailView:
        return self._act_on_one(session, passport, mismatch_id, Verb.REOPEN, reason)

    @command("mismatches:operate")
    def act_on_mismatches(
        self,
        session: Session,
        passport: Passport,
        *,
        act: str,
        ids: Sequence[str],
        reason: str,
        to: str | None = None,
        **new_order: Any,
    ) -> BulkView:
        if act in _ACTS_OF_ADMINS:
            passport.require(ADMIN_PERMISSION)
        if (to is not None) != (act == "correct"):
            raise InvalidRequest.of_field("to", "A correction, and nothing else, goes to upstream or to local.")
        acting = self._act(session, passport, act, reason, to=to or "", new_order=NewOrder(**new_order))
        is_of_money = act in (Verb.CORRECT, Verb.APPROVE)
        return mismatches.act_on_mismatches(session, passport, ids=ids, act=acting, is_of_money=is_of_money)

    @query(ADMIN_PERMISSION)
    def preview_correction(
        self, session: Session, passport: Passport, *, mismatch_id: str, to: str, reason: str, **new_order: Any
    ) -> CorrectionPreview:
        return corrections.preview_correction(
            session,
            passport,
            mismatch_id=mismatch_id,
            to=to,
            reason=reason,
            new_order=NewOrder(**new_order),
            terms=self._terms(),
        )

    @command(ADMIN_PERMISSION)
    def correct_mismatch(
        self, session: Session, passport: Passport, *, mismatch_id: str, to: str, reason: str, **new_order: Any
    ) -> MismatchDetailView:
        return self._act_on_one(
            session, passport, mismatch_id, Verb.CORRECT, reason, to=to, new_order=NewOrder(**new_order)
        )

    @command(ADMIN_PERMISSION)
    def approve_correction(
        self,
        session: Session,
        passport: Passport,
        *,
        mismatch_id: str,
        content_sha256: str | None = None,
        reason: str | None = None,
    ) -> MismatchDetailView:
        return self._act_on_one(session, passport, mismatch_id, Verb.APPROVE, reason, content_sha256=content_sha256)

    @command(ADMIN_PERMISSION)
    def reject_correction(
        self, session: Session, passport: Passport, *, mismatch_id: str, reason: str
    ) -> MismatchDetailView:
        return self._act_on_one(session, passport, mismatch_id, Verb.REJECT, reason)

    @command(ADMIN_PERMISSION)
    def reverse_correction(
        self, session: Session, passport: Passport, *, correction_id: str, reason: str
    ) -> CorrectionView:
        return corrections.reverse_correction(
            session, passport, correction_id=correction_id, reason=reason, terms=self._terms()
        )

    @query("mismatches:read")
    def list_corrections(
        self,
        session: Session,
        passport: Passport,
        *,
        limit: int,
        cursor: str | None = None,
        status: Sequence[str] = (),
        to: str | None = None,
        mismatch_id: str | None = None,
        merchant_id: str | None = None,
    ) -> CorrectionPage:
        return correction_queries.list_corrections(
            session,
            passport,
            status=status,
            to=to,
            mismatch_id=mismatch_id,
            merchant_id=merchant_id,
            limit=limit,
            cursor=cursor,
        )

    @query("mismatches:read")
    def get_correction(self, session: Session, passport: Passport, *, correction_id: str) -> CorrectionView:
        return correction_queries.get_correction(session, passport, correction_id=correction_id)

    def _terms(self) -> Terms:
        return Terms(
            zone_name=self.zone_name(),
            approval_threshold=str(self.parameters.get("ledger.correction_approval_threshold")),
            large_change=self.threshold(),
            default_fee_percent=self.fee_percent(),
        )

    def _act_on_one(
        self, session: Session, passport: Passport, mismatch_id: str, act: str, reason: str | None, **terms: Any
    ) -> MismatchDetailView:
        acting = self._act(session, passport, act, reason, **terms)
        alone(session, lambda batch: acting(batch, mismatch_id))
        return queries.get_mismatch(session, passport, mismatch_id=mismatch_id)

    def _act(
        self,
        session: Session,
        passport: Passport,
        act: str,
        reason: Any,
        *,
        to: str = "",
        new_order: NewOrder = NO_TERMS,
        content_sha256: str | None = None,
    ) -> Callable[[Batch, str], str]:
        """Return what does an act to one mismatch. Raises: InvalidRequest for an act that there is not."""
        if act in (Verb.RECONCILE, Verb.IGNORE, Verb.REOPEN):
            verb = Verb(act)
            return lambda batch, mismatch_id: mismatches.close_or_reopen(
                session, passport, batch, mismatch_id=mismatch_id, verb=verb, reason=reason
            )
        terms = self._terms()
        if act == Verb.CORRECT:
            return lambda batch, mismatch_id: corrections.correct_mismatch(
                session,
                passport,
                batch,
                mismatch_id=mismatch_id,
                to=to,
                reason=reason,
                new_order=new_order,
                terms=terms,
            )
        if act == Verb.APPROVE:
            return lambda batch, mismatch_id: corrections.approve_correction(
                session,
                passport,
                batch,
                mismatch_id=mismatch_id,
                content_sha256=content_sha256,
                reason=reason,
                terms=terms,
            )
        if act == Verb.REJECT:
            return lambda batch, mismatch_id: corrections.reject_correction(
                session, passport, batch, mismatch_id=mismatch_id, reason=reason
            )
        raise InvalidRequest.of_field("act", "Must be reconcile, ignore, reopen, correct, approve or reject.")


def mismatch_filter(
    *,
    kind: Sequence[str] = (),
    status: Sequence[str] = (),
    date: str | None = None,
    from_time: str | None = None,
    to_time: str | None = None,
    min_difference: str | None = None,
    **exact: str | None,
) -> MismatchFilter:
    """Return the filter that a client describes. Raises: InvalidRequest."""
    least: Decimal | None = amount_of_any_currency("min_difference", min_difference)
    return MismatchFilter(
        kinds=kind,
        statuses=status,
        day=None if date is None else check_day(date),
        opened_from=None if from_time is None else parse_rfc3339(from_time),
        opened_to=None if to_time is None else parse_rfc3339(to_time),
        min_difference=least,
        **exact,
    )
