"""Calls about what payment platforms say: their callbacks, and what asking them comes to."""

from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy.orm import Session

from services.ledger.calls.channels import outbound_allow
from services.ledger.calls.dependencies import LedgerDependencies
from services.ledger.cipher import channel_cipher
from services.ledger.queries import upstream_answers
from services.ledger.usecases import callbacks, forgetting, order_sync
from shared.contracts.channels import CallbackView, OrderSyncView, UpstreamAnswerPage
from shared.passport import Passport
from shared.rpc.entrypoints import query, rpc
from shared.rpc.wire import current_call
from shared.ticks import every
from shared.times import duration_seconds

FORGETTING_SECONDS = 3600


class CallbackCalls(LedgerDependencies):
    """Callbacks."""

    @rpc(None, is_repeatable=True)
    def receive_callback(self, passport: Passport, *, code: str, headers: Mapping[str, str], body: str) -> CallbackView:
        return callbacks.receive_callback(
            self, channel_cipher(), code=code, headers=headers, body=body, allowed=outbound_allow()
        )

    @rpc("orders:operate", is_repeatable=True)
    def sync_order_statuses(
        self,
        passport: Passport,
        *,
        older_than_seconds: int = order_sync.OLDER_THAN_SECONDS,
        limit: int = order_sync.ORDERS_MAX,
        cursor: str | None = None,
    ) -> OrderSyncView:
        return order_sync.sync_order_statuses(
            self,
            channel_cipher(),
            current_call.get(),
            older_than_seconds=older_than_seconds,
            limit=limit,
            cursor=cursor,
            allowed=outbound_allow(),
        )

    @query("orders:read")
    def list_upstream_answers(
        self, session: Session, passport: Passport, *, order_no: str, limit: int, cursor: str | None = None
    ) -> UpstreamAnswerPage:
        return upstream_answers.list_upstream_answers(session, passport, order_no=order_no, limit=limit, cursor=cursor)

    @every(seconds=FORGETTING_SECONDS)
    def forget_upstream_messages(self) -> None:
        """Delete callbacks and raw answers that are kept no longer."""
        seconds = duration_seconds(str(self.parameters.get("ledger.callback_retention")))
        forgetting.forget_upstream_messages(self, kept=timedelta(seconds=seconds))
