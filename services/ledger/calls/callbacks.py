"""Calls about what payment platforms say: their callbacks, and what asking them comes to."""

from collections.abc import Mapping

from services.ledger.calls.channels import outbound_allow
from services.ledger.calls.dependencies import LedgerDependencies
from services.ledger.cipher import channel_cipher
from services.ledger.usecases import callbacks
from shared.contracts.channels import CallbackView
from shared.passport import Passport
from shared.rpc.entrypoints import rpc


class CallbackCalls(LedgerDependencies):
    """Callbacks."""

    @rpc(None)
    def receive_callback(self, passport: Passport, *, code: str, headers: Mapping[str, str], body: str) -> CallbackView:
        return callbacks.receive_callback(
            self, channel_cipher(), code=code, headers=headers, body=body, allowed=outbound_allow()
        )
