"""One connection to RabbitMQ, held open by one thread and used by many: the only place that owns a socket to the bus.

It works alike with threads, gevent and eventlet, because it uses nothing but `threading`. One thread reads, another
writes; whoever sends hands its frames over and never waits for the socket, be the broker slow, frozen or gone.
"""

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import amqp
import structlog
from amqp import spec
from amqp.method_framing import frame_writer

from shared.errors import Unavailable

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 20
IO_TIMEOUT_SECONDS = 1.0  # one value for reads and writes, so that neither changes the socket under the other
CONNECT_TIMEOUT_SECONDS = 3
BACKOFF_SECONDS_MAX = 2.0


class BusUnavailable(Unavailable):
    """The message bus does not answer right now; nothing was sent."""


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message to publish: a durable one survives the broker's restart."""

    exchange: str
    routing_key: str
    body: bytes
    headers: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    is_durable: bool = True
    is_mandatory: bool = True
    content_type: str = "application/json"

    def to_amqp(self) -> amqp.Message:
        """Return the message as py-amqp sends it."""
        return amqp.Message(
            self.body,
            content_type=self.content_type,
            delivery_mode=2 if self.is_durable else 1,
            application_headers=self.headers,
            **self.properties,
        )


class Link:
    """A connection that comes back by itself. `on_connect` sets its channels up anew after each loss."""

    def __init__(
        self,
        amqp_url: str,
        *,
        name: str,
        on_connect: Callable[[amqp.Connection], None],
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._amqp_url = amqp_url
        self._on_connect = on_connect
        self._on_lost = on_lost
        self._connection: amqp.Connection | None = None
        self._up = threading.Event()
        self._is_stopping = False
        self._output: _Output | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"link-{name}")

    def start(self) -> None:
        """Begin to connect, without waiting for it."""
        self._thread.start()

    def stop(self) -> None:
        """Close the connection; messages that are not acknowledged go back to the broker."""
        self._is_stopping = True
        self._thread.join(CONNECT_TIMEOUT_SECONDS + IO_TIMEOUT_SECONDS)

    @property
    def is_up(self) -> bool:
        """Whether there is a connection that the broker has answered on."""
        return self._up.is_set()

    def wait_until_up(self, timeout_seconds: float) -> bool:
        """Wait for a connection. Returns: whether there is one."""
        return self._up.wait(timeout_seconds)

    def send(self, channel: amqp.Channel, message: OutgoingMessage) -> None:
        """Put one message on its way, without waiting for the socket or the broker.

        Raises: BusUnavailable when it certainly was not sent.
        """
        args = (0, message.exchange, message.routing_key, message.is_mandatory, False)
        self._send_method(channel, spec.Basic.Publish, "Bssbb", args, message.to_amqp())

    def ack(self, channel: amqp.Channel, delivery_tag: int) -> None:
        """Acknowledge a delivery; if the connection is gone the broker will deliver it again."""
        with contextlib.suppress(BusUnavailable):
            self._send_method(channel, spec.Basic.Ack, "Lb", (delivery_tag, False))

    def nack(self, channel: amqp.Channel, delivery_tag: int) -> None:
        """Give a delivery back to its queue, which counts how often that happens."""
        with contextlib.suppress(BusUnavailable):
            self._send_method(channel, spec.Basic.Nack, "Lbb", (delivery_tag, False, True))

    def cancel(self, channel: amqp.Channel, consumer_tag: str) -> None:
        """Ask for no more deliveries, without waiting for the broker's word."""
        with contextlib.suppress(BusUnavailable):
            self._send_method(channel, spec.Basic.Cancel, "sb", (consumer_tag, True))

    def _send_method(self, channel: amqp.Channel, *method: Any) -> None:
        if channel.connection is None or not self._up.is_set():
            raise BusUnavailable(retry_after_seconds=1)
        try:
            channel.send_method(*method)
        except (OSError, amqp.AMQPError) as error:
            self.drop()
            raise BusUnavailable(retry_after_seconds=1) from error

    def drop(self) -> None:
        """Break the connection, so that a new one is made."""
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.transport.sock.shutdown(socket.SHUT_RDWR)  # wakes the reader, whatever it waits with

    def _run(self) -> None:
        backoff_seconds = 0.1
        while not self._is_stopping:
            try:
                self._connect()
                backoff_seconds = 0.1
                self._read_until_stopped()
            except Exception as error:  # whatever it was, the cure is a new connection
                if not self._is_stopping:
                    log.warning("bus connection lost", link=self.name, error=repr(error))
            self._forget_connection()
            if not self._is_stopping:
                time.sleep(backoff_seconds)
                backoff_seconds = min(backoff_seconds * 2, BACKOFF_SECONDS_MAX)

    def _connect(self) -> None:
        url = urlsplit(self._amqp_url)
        connection = amqp.Connection(
            host=f"{url.hostname}:{url.port or 5672}",
            userid=unquote(url.username or "guest"),
            password=unquote(url.password or "guest"),
            virtual_host=unquote(url.path[1:]) or "/",
            heartbeat=HEARTBEAT_SECONDS,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            read_timeout=CONNECT_TIMEOUT_SECONDS,
            client_properties={"connection_name": self.name},
        )
        self._connection = connection
        connection.connect()
        self._on_connect(connection)
        connection.transport.sock.settimeout(IO_TIMEOUT_SECONDS)
        self._output = _Output(connection.transport, on_broken=self.drop)
        connection.frame_writer = frame_writer(connection, self._output)
        self._up.set()

    def _read_until_stopped(self) -> None:
        connection = self._connection
        assert connection is not None
        heartbeat_at = time.monotonic()
        while not self._is_stopping:
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=IO_TIMEOUT_SECONDS)
            if time.monotonic() - heartbeat_at > HEARTBEAT_SECONDS / 4:
                heartbeat_at = time.monotonic()
                connection.heartbeat_tick()
        with contextlib.suppress(Exception):
            connection.close()

    def _forget_connection(self) -> None:
        self._up.clear()
        connection, self._connection = self._connection, None
        output, self._output = self._output, None
        if output is not None:
            output.end()
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.collect()
        self._on_lost()


class _Output:
    """Gathers the frames that many callers write, and gives to the socket at once whatever has come together.

    A write to the socket is what costs most of a call (NAMEKO.md 4): a reply and its acknowledgement, or the calls of
    many requests, share one. No timer: the writer takes what there is as soon as it gets its turn.
    """

    def __init__(self, transport: Any, *, on_broken: Callable[[], None]) -> None:
        self._transport = transport
        self._on_broken = on_broken
        self._frames: deque[bytes] = deque()
        self._signal = threading.Lock()
        self._signal.acquire()
        self._is_signalled = False
        self._is_over = False
        threading.Thread(target=self._write_until_over, daemon=True, name="link-output").start()

    def write(self, frame: memoryview | bytes) -> None:
        """Take one frame; py-amqp's own lock is held meanwhile, and its buffer is used again afterwards."""
        self._frames.append(bytes(frame))
        self._wake()

    def end(self) -> None:
        """Write no more."""
        self._is_over = True
        self._wake()

    def _wake(self) -> None:
        if not self._is_signalled:
            self._is_signalled = True
            self._signal.release()

    def _write_until_over(self) -> None:
        while not self._is_over:
            self._signal.acquire()
            self._is_signalled = False
            frames = [self._frames.popleft() for _ in range(len(self._frames))]
            try:
                self._transport.write(b"".join(frames))
            except Exception:  # whatever it was, the cure is a new connection
                self._on_broken()
                return
