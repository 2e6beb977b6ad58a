"""The ledger as Nameko runs it: what others may call, what it hears, and what it does beside."""

import contextlib
import gc
from typing import Any

import structlog
from sqlalchemy.orm import Session

from services.ledger import sums, verification
from services.ledger.calls.archives import ArchiveCalls
from services.ledger.calls.cards import CardCalls
from services.ledger.calls.channels import ChannelCalls
from services.ledger.calls.entries import EntryCalls
from services.ledger.calls.orders import OrderCalls
from services.ledger.calls.reconciliations import ReconciliationCalls
from shared.contracts.settings import ParameterChanged
from shared.contracts.users import MerchantCreated, MerchantUpdated
from shared.messaging import handles
from shared.ticks import every

log = structlog.get_logger(__name__)

# A batch makes hundreds of thousands of objects that hold no rings: at Python's own threshold the collector walks
# all of them again and again, and takes as long as the posting.
GC_OBJECTS_BETWEEN = 200_000
PROOF_SECONDS = 240  # R20: incremental at least each five minutes; the whole proof is the task `balance_check`


class LedgerService(EntryCalls, OrderCalls, CardCalls, ArchiveCalls, ChannelCalls, ReconciliationCalls):
    """Accounts, entries, orders, the money of cards, and their proof."""

    name = "ledger"

    @handles(ParameterChanged)
    def on_parameter_changed(self, session: Session, envelope: Any, event: ParameterChanged) -> None:
        self.parameters.take(session, event)

    @handles(MerchantCreated, MerchantUpdated)
    def on_merchant_changed(self, session: Session, envelope: Any, event: MerchantCreated | MerchantUpdated) -> None:
        self.merchants.take(session, event)

    @every(seconds=1)
    def fold_deltas(self) -> None:
        while self.database.run(sums.fold_deltas) == sums.FOLD_ROWS:
            pass

    @every(seconds=300)
    def create_partitions(self) -> None:
        self.database.run(sums.create_partitions)

    @every(seconds=PROOF_SECONDS)
    def prove_new_entries(self) -> None:
        with contextlib.suppress(verification.VerificationRunning):
            view = self.database.run(lambda session: verification.verify_ledger(session, mode="incremental"))
            if not view["ok"]:
                log.error("the ledger is not proved", faults=view["faults"])


gc.set_threshold(GC_OBJECTS_BETWEEN, 20, 50)
