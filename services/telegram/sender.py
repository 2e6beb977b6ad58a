"""The loop that empties the queue: a few threads, each with one message at a time, on their way to the Bot API."""

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from services.telegram.client import BotApiError, Refusal, Sent
from services.telegram.domain import ALL_CHATS_RATE, CHAT_RATE, Rate
from services.telegram.usecases import deliveries
from services.telegram.usecases.deliveries import Claim
from shared.errors import Unavailable
from shared.passport import service_passport
from shared.rpc.wire import Call, current_call

log = structlog.get_logger(__name__)

THREADS = 4  # one that waits for a slow answer leaves three
IDLE_SECONDS = 1.0  # how late a message can be that another instance queued, or that nobody told of
TROUBLE_SECONDS = 1.0
STOP_SECONDS_MAX = 22  # an attempt's longest answer and a little more

Result = TypeVar("Result")


class Transactions(Protocol):
    """Does some work in a transaction of its own."""

    def __call__(self, work: Callable[[Session], Result]) -> Result: ...


class Messenger(Protocol):
    """What delivers a message."""

    def send_message(self, chat_id: int, text: str) -> Sent:
        """Send a text. Raises: BotApiError."""


class Sender:
    """Sends what is due, at the pace that Telegram allows, until it is stopped."""

    def __init__(
        self,
        run: Transactions,
        bot: Messenger,
        *,
        chat_rate: Rate = CHAT_RATE,
        all_chats_rate: Rate = ALL_CHATS_RATE,
    ) -> None:
        self._run = run
        self._bot = bot
        self._rates = {"chat_rate": chat_rate, "all_chats_rate": all_chats_rate}
        self._condition = threading.Condition()
        self._wakes = 0
        self._is_stopping = False
        self._threads = [threading.Thread(target=self._loop, daemon=True) for _ in range(THREADS)]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let the attempts that run come to their end, and begin no other."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify_all()
        give_up_at = time.monotonic() + STOP_SECONDS_MAX
        for thread in self._threads:
            thread.join(max(give_up_at - time.monotonic(), 0))

    def wake(self) -> None:
        """Say that something was queued."""
        with self._condition:
            self._wakes += 1
            self._condition.notify_all()

    def send_one(self) -> float | None:
        """Make one attempt at the message that is due first, if one is.

        Returns: in how many seconds there may be something to do; None where nothing waits.
        Raises: Unavailable, SQLAlchemyError where the database does not answer before the attempt.
        """
        claim = self._run(lambda session: deliveries.claim_notification(session, **self._rates))
        if not isinstance(claim, Claim):
            return claim
        settle = self._attempt(claim)
        # Whatever happens to the database now, what Telegram said must be written down: else it is sent again.
        while True:
            try:
                self._run(settle)
            except (Unavailable, SQLAlchemyError) as error:
                log.warning("outcome waits to be written", notification=claim.notification_id, error=repr(error))
                time.sleep(TROUBLE_SECONDS)
            else:
                return 0.0

    def _attempt(self, claim: Claim) -> Callable[[Session], None]:
        try:
            sent = self._bot.send_message(claim.chat_id, claim.text)
        except BotApiError as error:
            log.info("message not sent", notification=claim.notification_id, outcome=error.refusal, error=str(error))
            return _settlement(claim, error)
        return lambda session: deliveries.settle_sent(
            session, claim, message_id=sent.message_id, chat_title=sent.chat_title
        )

    def _loop(self) -> None:
        passport = service_passport("telegram")
        current_call.set(Call(service="telegram", method="send_notification", passport=passport, arguments={}))
        while not self._is_stopping:
            wakes = self._wakes
            try:
                seconds = self.send_one()
            except (Unavailable, SQLAlchemyError) as error:
                log.warning("queue cannot be read", error=repr(error))
                seconds = TROUBLE_SECONDS
            except Exception:
                log.exception("sender stumbled")
                seconds = TROUBLE_SECONDS
            if seconds != 0:
                self._wait(wakes, IDLE_SECONDS if seconds is None else min(max(seconds, 0.01), IDLE_SECONDS))

    def _wait(self, wakes: int, seconds: float) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self._is_stopping or self._wakes != wakes, seconds)


def _settlement(claim: Claim, error: BotApiError) -> Callable[[Session], None]:
    text = str(error)
    settle: Callable[..., None]
    arguments: dict[str, Any]
    match error.refusal:
        case Refusal.RATE_LIMITED:
            settle, arguments = (
                deliveries.settle_rate_limited,
                {"retry_after_seconds": error.retry_after_seconds},
            )
        case Refusal.MIGRATED:
            settle, arguments = deliveries.settle_migrated, {"migrate_to_chat_id": error.migrate_to_chat_id}
        case Refusal.UNREACHABLE:
            reason = "chat_not_found" if "chat not found" in text else "bot_removed"
            settle, arguments = deliveries.settle_unreachable, {"reason": reason}
        case Refusal.REFUSED:
            settle, arguments = deliveries.settle_refused, {}
        case Refusal.MISCONFIGURED:
            settle, arguments = deliveries.settle_misconfigured, {}
        case Refusal.UNAVAILABLE | Refusal.UNKNOWN:
            is_outcome_unknown = error.refusal is Refusal.UNKNOWN
            settle, arguments = deliveries.settle_failed, {"is_outcome_unknown": is_outcome_unknown}
    return lambda session: settle(session, claim, error=text, **arguments)
