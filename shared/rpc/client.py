"""Calls a service over one long-lived connection that all callers of a process share.

No reply queue is declared for a call, no confirm is waited for: a request that no queue takes comes back at once,
and a lost connection ends the calls that were waiting on it. Source: NAMEKO.md 4, `spike/bus.py`.
"""

import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

import amqp
import structlog

from shared.errors import DeadlineExceeded, OutcomeUnknown, ServiceError, Unavailable
from shared.link import BusUnavailable, Link, OutgoingMessage
from shared.passport import Passport
from shared.rpc.wire import (
    REPLIES_EXCHANGE,
    RPC_EXCHANGE,
    Answer,
    Call,
    MalformedMessage,
    kept_key,
    pack_call,
    unpack_answer,
)

log = structlog.get_logger(__name__)

TIMEOUT_SECONDS = 10.0
CALLS_IN_FLIGHT_MAX = 1000
CONNECT_WAIT_SECONDS_MAX = 2.0


class ServiceDown(Unavailable):
    """A part of the system is not running right now."""


class TooManyCalls(Unavailable):
    """This process has as many calls under way as it can take."""


class _Waiting:
    """One call that waits: a lock that is released when the answer, or the end of the connection, comes."""

    __slots__ = ("body", "error", "signal")

    def __init__(self) -> None:
        self.signal = threading.Lock()
        self.signal.acquire()
        self.body: bytes | None = None
        self.error: ServiceError | None = None

    def end(self, *, body: bytes | None = None, error: ServiceError | None = None) -> None:
        self.body, self.error = body, error
        self.signal.release()


class RpcClient:
    """Calls services. Safe for any number of threads or greenlets at once."""

    def __init__(self, amqp_url: str, keys: Mapping[str, bytes], *, name: str) -> None:
        """Prepare a client.

        keys: service to its passport key; only these services can be called.
        name: the calling process, as the broker's tools show it and as its reply queue is named.
        """
        self._keys = keys
        self._reply_queue = f"reply.{name}.{uuid.uuid4().hex}"
        self._waiting: dict[str, _Waiting] = {}
        self._channel: amqp.Channel | None = None
        self._link = Link(amqp_url, name=f"{name}-calls", on_connect=self._open_channel, on_lost=self._end_all)

    def start(self) -> "RpcClient":
        """Begin to connect. Returns: the client itself."""
        self._link.start()
        return self

    def stop(self) -> None:
        """Close the connection; calls under way end as OutcomeUnknown."""
        self._link.stop()

    @property
    def is_up(self) -> bool:
        """Whether the bus answers."""
        return self._link.is_up

    @property
    def calls_in_flight(self) -> int:
        """How many calls wait for their answer."""
        return len(self._waiting)

    def call(
        self,
        service: str,
        method: str,
        *,
        passport: Passport,
        timeout: float = TIMEOUT_SECONDS,
        idempotency_key: str | None = None,
        **arguments: Any,
    ) -> Answer:
        """Call a service's method and wait for its answer, for `timeout` seconds in all.

        Raises, in order: TooManyCalls, BusUnavailable and ServiceDown when certainly nothing was done;
        OutcomeUnknown when the connection was lost meanwhile; DeadlineExceeded; whatever the service raised.
        """
        if len(self._waiting) >= CALLS_IN_FLIGHT_MAX:
            raise TooManyCalls(retry_after_seconds=1)
        give_up_at = time.monotonic() + timeout
        call = Call(
            service=service,
            method=method,
            passport=passport,
            arguments=arguments,
            idempotency_key=kept_key(idempotency_key, key=self._keys[service]),
            deadline=time.time() + timeout,
        )
        if not self._link.wait_until_up(min(timeout, CONNECT_WAIT_SECONDS_MAX)):
            raise BusUnavailable(retry_after_seconds=1)
        correlation_id = uuid.uuid4().hex
        waiting = self._waiting[correlation_id] = _Waiting()
        try:
            self._send(call, correlation_id, give_up_at - time.monotonic())
            if not waiting.signal.acquire(timeout=max(give_up_at - time.monotonic(), 0.001)):
                raise DeadlineExceeded(f"{service} did not answer in time.", retry_after_seconds=1)
        finally:
            self._waiting.pop(correlation_id, None)
        if waiting.error is not None:
            raise waiting.error
        assert waiting.body is not None
        try:
            return unpack_answer(waiting.body, key=self._keys[service], correlation_id=correlation_id)
        except MalformedMessage as error:
            raise OutcomeUnknown("The answer could not be read.") from error

    def _send(self, call: Call, correlation_id: str, seconds_left: float) -> None:
        channel = self._channel
        if channel is None:
            raise BusUnavailable(retry_after_seconds=1)
        headers = {
            "method": call.method,
            "request_id": call.passport.request_id,
            "deadline": str(call.deadline),
        }
        if call.idempotency_key is not None:
            headers["idempotency_key"] = call.idempotency_key
        message = OutgoingMessage(
            exchange=RPC_EXCHANGE,
            routing_key=call.service,
            body=pack_call(call, key=self._keys[call.service], correlation_id=correlation_id),
            headers=headers,
            properties={
                "correlation_id": correlation_id,
                "reply_to": self._reply_queue,
                # A service that comes back late finds nothing to do that nobody waits for any more.
                "expiration": str(max(int(seconds_left * 1000), 1)),
            },
            is_durable=False,
            content_type="application/octet-stream",
        )
        self._link.send(channel, message)

    def _open_channel(self, connection: amqp.Connection) -> None:
        channel = connection.channel()
        channel.queue_declare(self._reply_queue, exclusive=True, auto_delete=True)
        channel.queue_bind(self._reply_queue, REPLIES_EXCHANGE, self._reply_queue)
        channel.events["basic_return"].add(self._on_return)
        channel.basic_consume(self._reply_queue, no_ack=True, callback=self._on_answer)
        self._channel = channel

    def _end_all(self) -> None:
        self._channel = None
        while self._waiting:
            try:
                _, waiting = self._waiting.popitem()
            except KeyError:
                return
            waiting.end(error=OutcomeUnknown(retry_after_seconds=1))

    def _on_answer(self, message: amqp.Message) -> None:
        waiting = self._waiting.pop(message.properties.get("correlation_id", ""), None)
        if waiting is not None:  # else it came too late, or twice
            body = message.body
            waiting.end(body=body if isinstance(body, bytes) else bytes(body))

    def _on_return(self, _error: Exception, _exchange: str, service: str, message: amqp.Message) -> None:
        waiting = self._waiting.pop(message.properties.get("correlation_id", ""), None)
        if waiting is not None:
            waiting.end(error=ServiceDown(f"{service} is not running.", retry_after_seconds=1))
