"""Calls about statements: begin, send and finish one, read what became of it; and the tick that imports."""

import base64
import binascii
from typing import Any

from sqlalchemy.orm import Session

from services.ledger.calls.dependencies import LedgerDependencies
from services.ledger.queries import statements as queries
from services.ledger.usecases import statement_import, statements
from shared.contracts.statements import StatementPage, StatementView, UpstreamRecordPage
from shared.errors import InvalidRequest, ServiceError
from shared.passport import Passport
from shared.rpc.entrypoints import command, query, rpc
from shared.rpc.wire import Answer, current_call
from shared.ticks import every

IMPORT_LOOK_SECONDS = 0.25  # somebody watches it; a look that finds nothing takes a millisecond
SWEEP_SECONDS = 300
AT_ONCE_BYTES_MAX = 2 * 1024 * 1024  # so small a file is read while its sender waits


class StatementCalls(LedgerDependencies):
    """Statements."""

    @command("mismatches:operate")
    def begin_statement(self, session: Session, passport: Passport, **statement: Any) -> StatementView:
        return statements.begin_statement(session, passport, **statement)

    @rpc("mismatches:operate", is_repeatable=True)
    def add_statement_chunk(self, passport: Passport, *, statement_id: str, seq: int, content: str) -> None:
        try:
            piece = base64.b64decode(content, validate=True)
        except binascii.Error:
            raise InvalidRequest.of_field("content", "Not base64.") from None
        self.run(
            lambda session: statements.add_statement_chunk(
                session, passport, statement_id=statement_id, seq=seq, content=piece
            )
        )

    @rpc("mismatches:operate")
    def finish_statement(self, passport: Passport, **upload: Any) -> Answer:
        """End an upload; a small one is imported at once, a large one by the tick."""
        key = current_call.get().idempotency_key
        statement_id = upload["statement_id"]
        try:
            answer: Answer = self.run(
                lambda session: statements.finish_statement(session, passport, idempotency_key=key, **upload)
            )
        except ServiceError:
            self._abandon(passport, statement_id)
            raise
        if answer.is_replayed:
            self._abandon(passport, statement_id)
            return answer
        if answer.result["size_bytes"] > AT_ONCE_BYTES_MAX:
            return answer
        view = statement_import.import_statement(self, statement_id=statement_id, zone_name=self.zone_name())
        if view is not None and view["status"] == "refused":
            raise statements.refusal_of(view)
        return answer if view is None else Answer(view)

    @rpc("mismatches:operate", is_repeatable=True)
    def abandon_statement(self, passport: Passport, *, statement_id: str) -> None:
        """Forget an upload of one's own that broke off."""
        self._abandon(passport, statement_id)

    def _abandon(self, passport: Passport, statement_id: str) -> None:
        self.run(
            lambda session: statements.abandon_statement(session, statement_id=statement_id, actor_id=passport.actor_id)
        )

    @query("mismatches:read")
    def list_statements(
        self,
        session: Session,
        passport: Passport,
        *,
        limit: int,
        cursor: str | None = None,
        channel: str | None = None,
        status: str | None = None,
    ) -> StatementPage:
        return queries.list_statements(session, passport, limit=limit, cursor=cursor, channel=channel, status=status)

    @query("mismatches:read")
    def get_statement(self, session: Session, passport: Passport, *, statement_id: str) -> StatementView:
        return queries.get_statement(session, passport, statement_id=statement_id)

    @query("mismatches:read")
    def list_statement_records(
        self,
        session: Session,
        passport: Passport,
        *,
        statement_id: str,
        limit: int,
        cursor: str | None = None,
        **filters: Any,
    ) -> UpstreamRecordPage:
        return queries.list_statement_records(
            session, passport, statement_id=statement_id, limit=limit, cursor=cursor, **filters
        )

    @every(seconds=IMPORT_LOOK_SECONDS)
    def import_statements(self) -> None:
        while statement_import.import_next_statement(self, zone_name=self.zone_name()) is not None:
            pass

    @every(seconds=SWEEP_SECONDS)
    def sweep_uploads(self) -> None:
        self.run(statements.sweep_uploads)
