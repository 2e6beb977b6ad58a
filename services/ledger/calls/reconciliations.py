"""Calls about reconciliation: reconcile a channel's day or all of them, read the runs, compare two."""

from datetime import date, timedelta
from functools import partial

from sqlalchemy.orm import Session

from services.ledger.calls.dependencies import LedgerDependencies
from services.ledger.domain.days import check_day
from services.ledger.queries import reconciliations as queries
from services.ledger.usecases import reconciliations
from shared.contracts.reconciliations import (
    ComparisonView,
    DayRunsView,
    ReconciliationDetailView,
    ReconciliationPage,
    ReconciliationRunning,
    ReconciliationView,
)
from shared.errors import PermissionDenied
from shared.passport import Passport
from shared.rpc.entrypoints import command, query, rpc
from shared.times import duration_seconds, today


class ReconciliationCalls(LedgerDependencies):
    """Reconciliation."""

    def grace_seconds(self) -> int:
        """Return how long what does not fit may still come right."""
        return duration_seconds(str(self.parameters.get("ledger.reconciliation_grace")))

    @command("mismatches:operate")
    def create_reconciliation(
        self, session: Session, passport: Passport, *, channel: str, date: str
    ) -> ReconciliationView:
        self.run(reconciliations.refresh_statistics)
        return self._reconcile(session, passport, channel, check_day(date))

    def _reconcile(self, session: Session, passport: Passport, channel: str, day: date) -> ReconciliationView:
        return reconciliations.create_reconciliation(
            session,
            passport,
            channel=channel,
            day=day,
            zone_name=self.zone_name(),
            grace_seconds=self.grace_seconds(),
        )

    @rpc("mismatches:operate", is_repeatable=True)
    def reconcile_day(self, passport: Passport, *, date: str | None = None) -> DayRunsView:
        """Reconcile a day over all active channels, each in a transaction of its own.

        date: None is yesterday, and with it each earlier day of which the last run expected something.
        """
        if passport.merchants is not None:
            raise PermissionDenied("A channel is reconciled over all merchants.")
        day = today(self.zone_name()) - timedelta(days=1) if date is None else check_day(date)
        self.run(reconciliations.refresh_statistics)
        view: DayRunsView = {"date": day.isoformat(), "items": [], "busy": []}
        for channel, each in self.run(partial(self._due, day=day, is_alone=date is not None)):
            reconcile = partial(self._reconcile, passport=passport, channel=channel, day=each)
            try:
                view["items"].append(self.run(reconcile))
            except ReconciliationRunning:
                view["busy"].append(channel)
        return view

    def _due(self, session: Session, *, day: date, is_alone: bool) -> list[tuple[str, date]]:
        return [due for due in queries.days_due(session, yesterday=day) if due[1] == day or not is_alone]

    @query("mismatches:read")
    def list_reconciliations(
        self,
        session: Session,
        passport: Passport,
        *,
        limit: int,
        cursor: str | None = None,
        channel: str | None = None,
        date: str | None = None,
    ) -> ReconciliationPage:
        day = None if date is None else check_day(date)
        return queries.list_reconciliations(session, passport, channel=channel, day=day, limit=limit, cursor=cursor)

    @query("mismatches:read")
    def get_reconciliation(
        self, session: Session, passport: Passport, *, reconciliation_id: str
    ) -> ReconciliationDetailView:
        return queries.get_reconciliation(session, passport, reconciliation_id=reconciliation_id)

    @query("mismatches:read")
    def compare_reconciliations(
        self,
        session: Session,
        passport: Passport,
        *,
        reconciliation_id: str,
        limit: int,
        with_id: str | None = None,
        change: str | None = None,
        cursor: str | None = None,
    ) -> ComparisonView:
        return queries.compare_reconciliations(
            session,
            passport,
            reconciliation_id=reconciliation_id,
            with_id=with_id,
            change=change,
            limit=limit,
            cursor=cursor,
        )
