"""Calls about what payment platforms say: their callbacks, and what asking them comes to."""

from collections.abc import Mapping

from services.ledger.calls.channels import outbound_allow
from services.ledger.calls.dependencies import LedgerDependencies
from services.ledger.cipher import channel_cipher
from services.ledger.usecases import callbacks, order_sync
from shared.contracts.channels import CallbackView, OrderSyncView
from shared.passport import Passport
from shared.rpc.entrypoints import rpc
from shared.rpc.wire import current_call


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
