"""The ledger as Nameko runs it: what others may call, what it hears, and what it does beside."""

import gc
from typing import Any

from sqlalchemy.orm import Session

from services.ledger import sums
from services.ledger.calls.archives import ArchiveCalls
from services.ledger.calls.books import BookCalls
from services.ledger.calls.callbacks import CallbackCalls
from services.ledger.calls.cards import CardCalls
from services.ledger.calls.channels import ChannelCalls
from services.ledger.calls.entries import EntryCalls
from services.ledger.calls.explanations import ExplanationCalls
from services.ledger.calls.mismatches import MismatchCalls
from services.ledger.calls.orders import OrderCalls
from services.ledger.calls.reconciliations import ReconciliationCalls
from services.ledger.calls.statements import StatementCalls
from shared.contracts.settings import ParameterChanged
from shared.contracts.users import MerchantCreated, MerchantUpdated
from shared.messaging import handles
from shared.ticks import every

# A batch makes hundreds of thousands of objects that hold no rings: at Python's own threshold the collector walks
# all of them again and again, and takes as long as the posting.
GC_OBJECTS_BETWEEN = 200_000


class LedgerService(
    EntryCalls,
    OrderCalls,
    CardCalls,
    ArchiveCalls,
    BookCalls,
    ChannelCalls,
    CallbackCalls,
    StatementCalls,
    ReconciliationCalls,
    MismatchCalls,
    ExplanationCalls,
):
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


gc.set_threshold(GC_OBJECTS_BETWEEN, 20, 50)
