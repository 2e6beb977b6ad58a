"""Calls about archives: archive a month, list archives, read one back, prove one."""

import contextlib
from typing import Any

from sqlalchemy.orm import Session

from services.ledger.calls.dependencies import LedgerDependencies
from services.ledger.domain.orders import check_reason
from services.ledger.queries import archives as queries
from services.ledger.usecases import archives
from shared.contracts.archives import (
    ArchivedEntryPage,
    ArchivePage,
    ArchiveProofView,
    ArchiveView,
    ArchivingRunning,
)
from shared.errors import PermissionDenied
from shared.passport import Passport
from shared.rpc.entrypoints import command, query
from shared.ticks import every

ARCHIVING_SECONDS = 600


class ArchiveCalls(LedgerDependencies):
    """Archives."""

    @command("ledger:admin")
    def archive_entries(self, session: Session, passport: Passport, *, month: str, reason: str) -> ArchiveView:
        if passport.merchants is not None:
            raise PermissionDenied("An archive is of all merchants.")
        said = check_reason(reason, is_required=True) or ""
        first_day = archives.check_month(month)
        return archives.archive_entries(
            session, month=first_day, reason=said, actor_id=passport.actor_id, actor_name=passport.actor_name
        )

    @query("ledger:read")
    def list_archives(
        self, session: Session, passport: Passport, *, limit: int, cursor: str | None = None
    ) -> ArchivePage:
        return queries.list_archives(session, passport, limit=limit, cursor=cursor)

    @query("ledger:read")
    def get_archive(self, session: Session, passport: Passport, *, archive_id: str) -> ArchiveView:
        return queries.get_archive(session, passport, archive_id=archive_id)

    @query("ledger:read")
    def verify_archive(self, session: Session, passport: Passport, *, archive_id: str) -> ArchiveProofView:
        return queries.verify_archive(session, passport, archive_id=archive_id)

    @query("ledger:read")
    def list_archived_entries(
        self, session: Session, passport: Passport, *, month: str, limit: int, **filters: Any
    ) -> ArchivedEntryPage:
        cursor = filters.pop("cursor", None)
        first_day = archives.check_month(month)
        return queries.list_archived_entries(session, passport, month=first_day, limit=limit, cursor=cursor, **filters)

    @every(seconds=ARCHIVING_SECONDS)
    def archive_due_entries(self) -> None:
        """Archive the oldest month where the log keeps it no longer; the next one at the next tick."""
        months = int(self.parameters.get("ledger.retention_months"))

        def work(session: Session) -> None:
            month = archives.due_month(session, retention_months=months)
            if month is None:
                return
            reason = f"The log keeps {months} months (ledger.retention_months)."
            archives.archive_entries(session, month=month, reason=reason, actor_id="system", actor_name="system")

        with contextlib.suppress(ArchivingRunning):
            self.database.run(work)
