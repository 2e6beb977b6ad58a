"""The loops that take events off their queues, one for each handler, and what becomes of an event that is refused.

A handler that raises gets the event again later, five times with growing delays, and then it lies among the dead
letters with its reason. What is no event of ours goes to quarantine. Source: RELIABILITY.md R2, R7.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import amqp
import eventlet
import orjson
import structlog
from eventlet.event import Event as Signal
from nameko.extensions import Entrypoint, SharedExtension

from shared.config import process_config
from shared.contracts.system import SystemErrorOccurred
from shared.errors import Unavailable
from shared.events import Envelope
from shared.link import Link, OutgoingMessage
from shared.logs import request_id_var
from shared.outbox import add
from shared.passport import Passport
from shared.process import Publisher, database_of
from shared.rpc.wire import Call, current_call
from shared.topology import DEAD_LETTERS, QUARANTINE, RETRY_DELAYS_MS, Subscription, event_queue_name, retry_name

log = structlog.get_logger(__name__)

PREFETCH = 20
STOP_SECONDS_MAX = 25
# A batch costs little more than one event: what is on its way may come along.
GATHER_SECONDS = 0.1
GATHER_LOOK_SECONDS = 0.01
ATTEMPT_HEADER = "x-attempt"
AWAY_DELAY_MS = RETRY_DELAYS_MS[1]


def act_for(envelope: Envelope, service: str, handler: str, work: Callable[[], None]) -> None:
    """Run a handler on behalf of whoever caused the event, so that what it tells of in turn names them."""
    actor = envelope["actor"]
    passport = Passport(
        actor_id=actor["id"],
        actor_name=actor["name"],
        actor_type=actor["type"],
        permissions={},
        merchants=frozenset(),
        request_id=envelope["request_id"],
    )
    call = Call(service=service, method=handler, passport=passport, arguments={})
    call_token, log_token = current_call.set(call), request_id_var.set(envelope["request_id"])
    try:
        work()
    finally:
        current_call.reset(call_token)
        request_id_var.reset(log_token)


class EventConsumer(SharedExtension):
    """The connection over which a service hears its events: a channel for each handler."""

    def __init__(self) -> None:
        self._handlers: list[EventHandler] = []

    def setup(self) -> None:
        config = process_config()
        self.link = Link(config.amqp_url, name=f"{config.instance}-events", on_connect=self._open_channels)

    def register(self, handler: "EventHandler") -> None:
        """Take a handler in, before the start."""
        self._handlers.append(handler)

    def start(self) -> None:
        self.link.start()

    def stop(self) -> None:
        self.link.stop()

    def _open_channels(self, connection: amqp.Connection) -> None:
        for handler in self._handlers:
            handler.open_channel(connection.channel())


class EventHandler(Entrypoint):
    """One queue and the loop that takes from it, one event or one batch at a time."""

    consumer = EventConsumer()
    publisher = Publisher()

    def __init__(self, subscription: Subscription, **kwargs: Any) -> None:
        self.subscription = subscription
        self._deliveries: deque[amqp.Message] = deque()
        self._arrived = Signal()
        self._is_stopping = False
        self._stopped = Signal()
        super().__init__(**kwargs)

    def setup(self) -> None:
        self.queue = event_queue_name(self.container.service_name, self.method_name)
        self.consumer.register(self)

    def start(self) -> None:
        eventlet.spawn(self._take_until_stopped)

    def stop(self) -> None:
        self._is_stopping = True
        self._wake()
        with eventlet.Timeout(STOP_SECONDS_MAX, False):
            self._stopped.wait()

    def open_channel(self, channel: amqp.Channel) -> None:
        """Consume on a fresh channel; what the lost one had delivered will be delivered again."""
        self._deliveries.clear()
        channel.basic_qos(0, max(PREFETCH, self.subscription.batch), False)
        channel.basic_consume(self.queue, callback=self._on_delivery)

    def _on_delivery(self, message: amqp.Message) -> None:
        self._deliveries.append(message)
        self._wake()

    def _wake(self) -> None:
        if not self._arrived.ready():
            self._arrived.send(None)

    def _take_until_stopped(self) -> None:
        while not self._is_stopping:
            if not self._deliveries:
                self._arrived = Signal()
                if not self._deliveries and not self._is_stopping:
                    self._arrived.wait()
                continue
            self._gather()
            batch = [self._deliveries.popleft() for _ in range(min(len(self._deliveries), self.subscription.batch))]
            try:
                self._take(batch)
            except Exception:  # nothing may end this loop; a new connection brings back what was not settled
                log.exception("events could not be taken", queue=self.queue)
                time.sleep(1)
                self.consumer.link.drop()
        self._stopped.send(None)

    def _gather(self) -> None:
        """Wait until a batch has come together, for `GATHER_SECONDS` at most."""
        give_up_at = time.monotonic() + GATHER_SECONDS
        while len(self._deliveries) < self.subscription.batch and time.monotonic() < give_up_at:
            time.sleep(GATHER_LOOK_SECONDS)

    def _take(self, messages: list[amqp.Message]) -> None:
        readable = []
        for message in messages:
            envelope = _envelope_in(message)
            if envelope is None:
                self._move(message, QUARANTINE, self.queue, "this is no event")
            else:
                readable.append((message, envelope))
        if not readable:
            return
        error = self._run([envelope for _, envelope in readable])
        if error is None:
            for message, _ in readable:
                self.consumer.link.ack(message.channel, message.delivery_tag)
        elif len(readable) > 1:  # one of them is the trouble: the others shall not wait for it
            for message, _ in readable:
                self._take([message])
        else:
            self._give_back(readable[0][0], readable[0][1], error)

    def _run(self, envelopes: list[Envelope]) -> BaseException | None:
        outcome = Signal()

        def on_result(_ctx: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
            outcome.send(exc_info[1] if exc_info else None)
            return result, None

        self.container.spawn_worker(self, (envelopes,), {}, handle_result=on_result)
        error: BaseException | None = outcome.wait()
        return error

    def _give_back(self, message: amqp.Message, envelope: Envelope, error: BaseException) -> None:
        attempt = int(message.headers.get(ATTEMPT_HEADER, 0))
        if isinstance(error, Unavailable):  # our database is away: the event is not to blame, however long that takes
            self._move(message, retry_name(AWAY_DELAY_MS), self.queue, repr(error), attempt)
            return
        if attempt < len(RETRY_DELAYS_MS):
            self._move(message, retry_name(RETRY_DELAYS_MS[attempt]), self.queue, repr(error), attempt + 1)
            return
        self._tell_of_dead_letter(envelope, error)
        self._move(message, DEAD_LETTERS, self.queue, repr(error), attempt + 1)

    def _tell_of_dead_letter(self, envelope: Envelope, error: BaseException) -> None:
        detail = f"{envelope['event']} was given up by {self.queue}: {type(error).__name__}"
        database = database_of(self.container)
        act_for(
            envelope,
            self.container.service_name,
            self.method_name,
            lambda: database.run(lambda session: add(session, SystemErrorOccurred(error=detail))),
        )

    def _move(self, message: amqp.Message, exchange: str, routing_key: str, reason: str, attempt: int = 0) -> None:
        """Put a delivery elsewhere, confirmed, and only then take it off its queue."""
        moved = OutgoingMessage(
            exchange=exchange,
            routing_key=routing_key,
            body=_body_of(message),
            headers={ATTEMPT_HEADER: attempt, "x-queue": self.queue, "x-reason": reason[:500]},
            properties={"message_id": str(message.properties.get("message_id", ""))},
        )
        log.warning("event moved", to=exchange, queue=self.queue, reason=reason[:500], attempt=attempt)
        try:
            self.publisher.confirmed.publish([moved])
        except Unavailable:
            time.sleep(1)
            self.consumer.link.nack(message.channel, message.delivery_tag)
        else:
            self.consumer.link.ack(message.channel, message.delivery_tag)


def _body_of(message: amqp.Message) -> bytes:
    body = message.body
    return body if isinstance(body, bytes) else str(body).encode()


def _envelope_in(message: amqp.Message) -> Envelope | None:
    try:
        envelope = orjson.loads(_body_of(message))
        is_envelope = isinstance(envelope["payload"], dict) and isinstance(envelope["actor"]["id"], str)
        return envelope if is_envelope and envelope.keys() >= Envelope.__required_keys__ else None
    except (ValueError, KeyError, TypeError):
        return None
