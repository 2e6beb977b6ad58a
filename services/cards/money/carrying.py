"""Carries transfers to the ledger: written down, asked for, written down again, with no transaction open in between.

Only the ledger's own word is an outcome. Whatever else comes back, or nothing, the transfer is asked for again under
its id until that word is there: by whoever sends the same key again, or by the tick.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import structlog
from sqlalchemy.orm import Session

from services.cards.domain.transfers import Direction
from services.cards.money.models import Transfer
from services.cards.money.usecases import begin_transfer, put_off, settle_transfer, take_due_transfer
from shared.errors import OutcomeUnknown, ServiceError, Unavailable
from shared.rpc.wire import Answer, Call, current_call

log = structlog.get_logger(__name__)

LEDGER_SECONDS_MAX: Final = 5.0
ANSWER_SECONDS: Final = 0.5  # what is kept of the caller's time for writing the outcome down
COMPLETED_AT_ONCE_MAX: Final = 100


class Ledger(Protocol):
    """The ledger as it is called."""

    def call(self, method: str, **arguments: Any) -> Any: ...


class Desk(Protocol):
    """What carrying needs of the process: its database and the ledger."""

    @property
    def ledger(self) -> Ledger: ...

    def run(self, work: Callable[[Session], Any]) -> Any: ...


def move_money(desk: Desk, call: Call, *, card_id: str, direction: Direction, amount: str, zone_name: str) -> Answer:
    """Move money between a card and its merchant, exactly once.

    amount: a positive decimal string in the card's currency.
    Returns: the TransferView, posted.
    Raises, in order: what `begin_transfer` returns or raises; OutcomeUnknown, with `transfer_id`: the transfer will
    be completed, and the same key answers with what it came to; InsufficientBalance and the ledger's other refusals.
    Emits: CardToppedUp, CardWithdrawn or CardTransferRefused.
    Idempotent: on the call's key, for ever.
    """
    begun = desk.run(
        lambda session: begin_transfer(
            session, call, card_id=card_id, direction=direction, amount=amount, zone_name=zone_name
        )
    )
    if isinstance(begun, ServiceError):
        raise begun
    if isinstance(begun, Answer):
        return begun
    settled = carry(desk, begun, seconds=min(LEDGER_SECONDS_MAX, call.seconds_left - ANSWER_SECONDS))
    error = settled.error()
    if error is not None:
        raise error
    return Answer(settled.view())


def carry(desk: Desk, transfer: Transfer, *, seconds: float) -> Transfer:
    """Ask the ledger for a transfer and write down what it says. Raises: OutcomeUnknown; Unavailable."""
    with _on_behalf_of(transfer) as call:
        try:
            if seconds <= 0:
                raise Unavailable("There is no time left to ask the ledger.")
            outcome = desk.ledger.call(
                "transfer_card_money", passport=call.passport, timeout=seconds, **transfer.order()
            )
        except ServiceError as error:
            if not isinstance(error, Unavailable):
                log.error("the ledger does not take a transfer", transfer_id=transfer.id, error=error.code)
            desk.run(lambda session: put_off(session, transfer.id))
            raise OutcomeUnknown(
                "The outcome is not known yet: ask again with the same Idempotency-Key.",
                transfer_id=transfer.id,
                retry_after_seconds=1,
            ) from error
        settled: Transfer = desk.run(lambda session: settle_transfer(session, transfer, outcome))
        return settled


def complete_transfers(desk: Desk) -> None:
    """Carry the transfers whose outcome nobody knows; while the ledger is away, leave them for later."""
    for _ in range(COMPLETED_AT_ONCE_MAX):
        transfer = desk.run(take_due_transfer)
        if transfer is None:
            return
        try:
            carry(desk, transfer, seconds=LEDGER_SECONDS_MAX)
        except OutcomeUnknown as unknown:
            if isinstance(unknown.__cause__, Unavailable):
                return


@contextmanager
def _on_behalf_of(transfer: Transfer) -> Iterator[Call]:
    """Be within the call that asked for the transfer, so that what is told names who it was."""
    call = transfer.call()
    token = current_call.set(call)
    try:
        yield call
    finally:
        current_call.reset(token)
