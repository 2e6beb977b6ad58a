"""Calls about the books: the daily checks and the rows behind them, the figures of a month, the closing of days."""

from datetime import timedelta

from sqlalchemy.orm import Session

from services.ledger.calls.dependencies import LedgerDependencies
from services.ledger.domain.days import check_day, check_month
from services.ledger.domain.orders import check_reason
from services.ledger.queries import daily_checks, figures
from services.ledger.usecases import closed_days
from shared.contracts.reconciliations import (
    DAILY_CHECKS,
    CheckRowPage,
    ClosedDayPage,
    ClosedDayView,
    DailyView,
    MonthlyView,
)
from shared.errors import InvalidRequest
from shared.passport import Passport
from shared.rpc.entrypoints import command, query
from shared.times import today


class BookCalls(LedgerDependencies):
    """The books of days and months."""

    @query("mismatches:read")
    def read_daily_checks(self, session: Session, passport: Passport, *, date: str) -> DailyView:
        return daily_checks.read_daily_checks(
            session, passport, day=check_day(date), zone_name=self.zone_name(), threshold=self.threshold()
        )

    @query("mismatches:read")
    def list_daily_check_rows(
        self,
        session: Session,
        passport: Passport,
        *,
        date: str,
        check: str,
        limit: int,
        currency: str | None = None,
        channel: str | None = None,
        all: bool = False,
        cursor: str | None = None,
    ) -> CheckRowPage:
        if check not in DAILY_CHECKS:
            raise InvalidRequest.of_field("check", f"Must be one of {', '.join(DAILY_CHECKS)}.")
        return daily_checks.list_daily_check_rows(
            session,
            passport,
            day=check_day(date),
            check=check,
            zone_name=self.zone_name(),
            threshold=self.threshold(),
            currency=currency,
            channel=channel,
            is_all=all,
            limit=limit,
            cursor=cursor,
        )

    @query("mismatches:read")
    def read_monthly_figures(self, session: Session, passport: Passport, *, month: str | None = None) -> MonthlyView:
        """Read the figures of a month, by default the last one that is over."""
        if month is None:
            first = (today(self.zone_name()).replace(day=1) - timedelta(days=1)).replace(day=1)
        else:
            first = check_month(month)
        return figures.read_monthly_figures(session, passport, first=first, zone_name=self.zone_name())

    @command("mismatches:admin")
    def close_day(
        self, session: Session, passport: Passport, *, date: str, reason: str, force: bool = False
    ) -> ClosedDayView:
        said = check_reason(reason, is_required=True) or ""
        return closed_days.close_day(
            session, passport, day=check_day(date), reason=said, is_forced=force, zone_name=self.zone_name()
        )

    @query("mismatches:read")
    def list_closed_days(
        self, session: Session, passport: Passport, *, limit: int, cursor: str | None = None
    ) -> ClosedDayPage:
        return figures.list_closed_days(session, limit=limit, cursor=cursor)
