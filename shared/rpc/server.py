"""Takes a service's calls off its queue, and answers each on the channel that it came by.

The answer is written before the acknowledgement, on one channel, so the broker has it first: as safe as a confirm
and half the price (NAMEKO.md 5). Nothing that a message holds can end the process.
"""

import time
from typing import Any

import amqp
import eventlet
import structlog
from nameko.extensions import Entrypoint, SharedExtension
from sqlalchemy.exc import SQLAlchemyError

from shared import outbox
from shared.config import process_config
from shared.contracts.system import SystemErrorOccurred
from shared.errors import InternalError, OutcomeUnknown, ServiceError
from shared.link import BusUnavailable, Link, OutgoingMessage
from shared.process import Publisher, database_of
from shared.rpc.wire import REPLIES_EXCHANGE, Answer, Call, MalformedMessage, current_call, pack_answer, unpack_call
from shared.topology import QUARANTINE, rpc_queue_name

log = structlog.get_logger(__name__)

STOP_SECONDS_MAX = 25
PING = "ping"


class UnknownMethod(InternalError):
    """This part of the system does not know how to do that."""


class RpcEntrypoint(Entrypoint):
    """A method that can be called. `is_repeatable`: whether a redelivered call may run it again."""

    def __init__(self, *, is_repeatable: bool, **kwargs: Any) -> None:
        self.is_repeatable = is_repeatable
        super().__init__(**kwargs)

    def setup(self) -> None:
        self.server.register(self)

    def stop(self) -> None:
        self.server.drain()


class RpcServer(SharedExtension):
    """The service's one consumer of calls."""

    publisher = Publisher()

    def __init__(self) -> None:
        self._entrypoints: dict[str, RpcEntrypoint] = {}
        self._in_flight = 0
        self._is_draining = False
        self._channel: amqp.Channel | None = None
        self._consumer_tag = ""

    def setup(self) -> None:
        config = process_config()
        self._service, self._key, self._workers_max = config.service, config.passport_key, config.workers_max
        self.link = Link(config.amqp_url, name=f"{config.instance}-answers", on_connect=self._open_channel)

    def register(self, entrypoint: RpcEntrypoint) -> None:
        """Take a method in, before the start."""
        self._entrypoints[entrypoint.method_name] = entrypoint

    def start(self) -> None:
        self.link.start()

    def drain(self) -> None:
        """Take no more calls, and wait until those under way are answered, for `STOP_SECONDS_MAX` at most."""
        if not self._is_draining and self._channel is not None:
            self._is_draining = True
            self.link.cancel(self._channel, self._consumer_tag)
        give_up_at = time.monotonic() + STOP_SECONDS_MAX
        while self._in_flight and time.monotonic() < give_up_at:
            eventlet.sleep(0.02)

    def stop(self) -> None:
        self.link.stop()

    def _open_channel(self, connection: amqp.Connection) -> None:
        if self._is_draining:
            return
        channel = connection.channel()
        channel.basic_qos(0, self._workers_max, False)
        self._consumer_tag = channel.basic_consume(rpc_queue_name(self._service), callback=self._on_request)
        self._channel = channel

    def _on_request(self, message: amqp.Message) -> None:
        properties, headers = message.properties, message.headers
        reply_to, correlation_id = properties.get("reply_to"), properties.get("correlation_id")
        try:
            if not reply_to or not correlation_id:
                raise MalformedMessage("nowhere to answer to")
            body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
            call = unpack_call(
                body,
                headers,
                service=self._service,
                key=self._key,
                correlation_id=correlation_id,
                is_redelivered=message.delivery_info["redelivered"],
            )
            self._dispatch(call, message)
        except MalformedMessage as error:
            eventlet.spawn_n(self._quarantine, message, str(error))
        except ServiceError as error:
            self._answer(message, error)
        except Exception:  # whatever a message can do to us, the next one is served
            log.exception("call could not be taken")
            self._answer(message, InternalError())

    def _dispatch(self, call: Call, message: amqp.Message) -> None:
        if call.seconds_left <= 0:
            self.link.ack(message.channel, message.delivery_tag)  # nobody waits any more
            return
        if call.method == PING:
            eventlet.spawn_n(lambda: self._answer(message, Answer(self._health())))
            return
        entrypoint = self._entrypoints.get(call.method)
        if entrypoint is None:
            raise UnknownMethod(f"{call.action} does not exist.")
        if call.is_redelivered and not entrypoint.is_repeatable and call.idempotency_key is None:
            # The process that took it first has died: it may have committed, and doing it again may do it twice.
            raise OutcomeUnknown()
        self._in_flight += 1

        def on_result(_ctx: Any, outcome: Any, exc_info: Any) -> tuple[Any, Any]:
            try:
                if exc_info is not None:
                    self._tell_of_error(call, exc_info[1])
                    outcome = InternalError()
                self._answer(message, outcome)
            except Exception:
                log.exception("answer could not be given")
            finally:
                self._in_flight -= 1
            return None, None

        self.container.spawn_worker(entrypoint, (call,), {}, handle_result=on_result)

    def _health(self) -> dict[str, Any]:
        """Return how this process fares, for readiness and metrics."""
        config = process_config()
        health: dict[str, Any] = {"instance": config.instance, "database": False, "in_flight": self._in_flight}
        try:
            with database_of(self.container).engine.connect() as connection:
                backlog = outbox.backlog(connection)
        except SQLAlchemyError:
            return health
        return health | {
            "database": True,
            "outbox_pending": backlog["pending"],
            "outbox_oldest_seconds": backlog["oldest_seconds"],
        }

    def _answer(self, message: amqp.Message, outcome: Answer | ServiceError) -> None:
        correlation_id = message.properties["correlation_id"]
        answer = OutgoingMessage(
            exchange=REPLIES_EXCHANGE,
            routing_key=message.properties["reply_to"],
            body=pack_answer(outcome, key=self._key, correlation_id=correlation_id),
            properties={"correlation_id": correlation_id},
            is_durable=False,
            is_mandatory=False,
            content_type="application/octet-stream",
        )
        try:
            self.link.send(message.channel, answer)
        except BusUnavailable:
            return  # the broker delivers the call again, and its key or its nature makes that harmless
        self.link.ack(message.channel, message.delivery_tag)

    def _quarantine(self, message: amqp.Message, reason: str) -> None:
        log.warning("call quarantined", reason=reason)
        body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
        headers = {"x-queue": rpc_queue_name(self._service), "x-reason": reason[:500]}
        try:
            self.publisher.confirmed.publish([OutgoingMessage(QUARANTINE, self._service, body, headers)])
        except ServiceError:
            log.warning("quarantine does not answer; the message is dropped", reason=reason)
        self.link.ack(message.channel, message.delivery_tag)

    def _tell_of_error(self, call: Call, error: BaseException) -> None:
        token = current_call.set(call)
        try:
            event = SystemErrorOccurred(error=f"{call.action}: {type(error).__name__}")
            database_of(self.container).run(lambda session: outbox.add(session, event))
        except Exception:
            log.exception("error could not be told of")
        finally:
            current_call.reset(token)


RpcEntrypoint.server = RpcServer()
