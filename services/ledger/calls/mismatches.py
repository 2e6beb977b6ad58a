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
from services.ledger.usecases.correction_sides import NewOrder, Terms
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
        self._close_or_reopen(session, passport, Verb.RECONCILE, reason)(mismatch_id)
        return queries.get_mismatch(session, passport, mismatch_id=mismatch_id)

    @command("mismatches:operate")
    def ignore_mismatch(
        self, session: Session, passport: Passport, *, mismatch_id: str, reason: str
    ) -> MismatchDetailView:
        self._close_or_reopen(session, passport, Verb.IGNORE, reason)(mismatch_id)
        return queries.get_mismatch(session, passport, mismatch_id=mismatch_id)

    @command("mismatches:operate")
    def reopen_mismatch(
        self, session: Session, passport: Passport, *, mismatch_id: str, reason: str
    ) -> MismatchDetailView:
        self._close_or_reopen(session, passport, Verb.REOPEN, reason)(mismatch_id)
        return queries.get_mismatch(session, passport, mismatch_id=mismatch_id)

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
        acting = self._act(session, passport, act, reason, to or "", NewOrder(**new_order))
        return mismatches.act_on_mismatches(session, passport, ids=ids, moves_money=act in _ACTS_OF_ADMINS, act=acting)

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
        self._act(session, passport, "correct", reason, to, NewOrder(**new_order))(mismatch_id)
        return queries.get_mismatch(session, passport, mismatch_id=mismatch_id)

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
        corrections.approve_correction(
            session,
            passport,
            mismatch_id=mismatch_id,
            content_sha256=content_sha256,
            reason=reason,
            terms=self._terms(),
        )
        return queries.get_mismatch(session, passport, mismatch_id=mismatch_id)

    @command(ADMIN_PERMISSION)
    def reject_correction(
        self, session: Session, passport: Passport, *, mismatch_id: str, reason: str
    ) -> MismatchDetailView:
        corrections.reject_correction(session, passport, mismatch_id=mismatch_id, reason=reason)
        return queries.get_mismatch(session, passport, mismatch_id=mismatch_id)

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

    def _close_or_reopen(self, session: Session, passport: Passport, verb: Verb, reason: str) -> Callable[[str], str]:
        return lambda mismatch_id: mismatches.close_or_reopen(
            session, passport, mismatch_id=mismatch_id, verb=verb, reason=reason
        )

    def _act(
        self, session: Session, passport: Passport, act: str, reason: str, to: str, new_order: NewOrder
    ) -> Callable[[str], str]:
        """Return what does an act to one mismatch. Raises: InvalidRequest for an act that there is not."""
        if act in (Verb.RECONCILE, Verb.IGNORE, Verb.REOPEN):
            return self._close_or_reopen(session, passport, Verb(act), reason)
        terms = self._terms()
        if act == Verb.CORRECT:
            return lambda mismatch_id: corrections.correct_mismatch(
                session, passport, mismatch_id=mismatch_id, to=to, reason=reason, new_order=new_order, terms=terms
            )
        if act == Verb.APPROVE:
            return lambda mismatch_id: corrections.approve_correction(
                session, passport, mismatch_id=mismatch_id, content_sha256=None, reason=reason, terms=terms
            )
        if act == Verb.REJECT:
            return lambda mismatch_id: corrections.reject_correction(
                session, passport, mismatch_id=mismatch_id, reason=reason
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
