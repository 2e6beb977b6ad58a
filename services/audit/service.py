"""The audit service on the bus: it hears everything, and answers searches of the log and checks of its chain."""

from typing import Any

from sqlalchemy.orm import Session

from services.audit import queries, usecases, verification
from shared.contracts.audit import ChainReport, LogDetailView, LogPage, LogStats, UsedPermission
from shared.database import Database
from shared.events import Envelope
from shared.messaging import handles_batch
from shared.passport import Passport
from shared.rpc.entrypoints import query
from shared.ticks import every

PARTITIONS_TICK_SECONDS = 6 * 3600
EVENTS_PER_BATCH = 500


class AuditService:
    """The log, its search, and its chain."""

    name = "audit"

    database = Database()

    @handles_batch(size=EVENTS_PER_BATCH)
    def record_events(self, session: Session, envelopes: list[Envelope]) -> None:
        usecases.record_events(session, envelopes)

    @query("logs:read")
    def list_logs(self, session: Session, passport: Passport, **filters: Any) -> LogPage:
        return queries.list_logs(session, passport, **filters)

    @query("logs:read")
    def get_log(self, session: Session, passport: Passport, *, log_id: str) -> LogDetailView:
        return queries.get_log(session, passport, log_id=log_id)

    @query("logs:read")
    def log_stats(self, session: Session, passport: Passport, **filters: Any) -> LogStats:
        return queries.log_stats(session, passport, **filters)

    @query("logs:read")
    def summarize_actions_of_actors(
        self, session: Session, passport: Passport, *, actor_ids: list[str], from_time: str
    ) -> dict[str, list[UsedPermission]]:
        return queries.summarize_actions_of_actors(session, actor_ids=actor_ids, from_time=from_time)

    @query("logs:read")
    def verify_chain(self, session: Session, passport: Passport, **span: Any) -> ChainReport:
        return verification.verify_chain(session, passport, **span)

    @every(seconds=PARTITIONS_TICK_SECONDS)
    def make_partitions(self) -> None:
        self.database.run(usecases.make_partitions)
