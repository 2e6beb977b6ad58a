"""Publishing that is over when the broker has what was published: in batches, for outbox, retries and records."""

import threading
import time
from collections.abc import Iterable

import amqp

from shared.errors import Unavailable
from shared.link import CONNECT_TIMEOUT_SECONDS, BusUnavailable, Link, OutgoingMessage


class NotConfirmed(Unavailable):
    """The broker did not confirm these messages in time: they may or may not have been kept."""


class ConfirmedPublisher:
    """Publishes in batches over a link of its own, and returns when the broker has taken all of a batch.

    Source: RELIABILITY.md R4; confirms per batch cost a thirtieth of confirms one by one (NAMEKO.md 4).
    """

    def __init__(self, amqp_url: str, *, name: str) -> None:
        self.link = Link(amqp_url, name=name, on_connect=self._open_channel, on_lost=self._close_channel)
        self._batch_lock = threading.Lock()
        self._settled = threading.Condition()
        self._channel: amqp.Channel | None = None
        self._tag_last = 0
        # Quorum queues confirm out of order, so what counts is what is left, not the highest tag.
        self._unsettled: set[int] = set()
        self._refusals: list[str] = []

    def start(self) -> None:
        """Begin to connect."""
        self.link.start()

    def stop(self) -> None:
        """Close the link."""
        self.link.stop()

    def publish(self, messages: Iterable[OutgoingMessage], *, timeout_seconds: float = 10.0) -> None:
        """Publish the messages in their order and wait until the broker has taken all of them.

        Raises: BusUnavailable when there is no connection; NotConfirmed when the outcome is unknown or a message
        found no queue. Publishing the same messages again is then right: consumers know them by their id.
        """
        deadline = time.monotonic() + timeout_seconds
        with self._batch_lock:
            if not self.link.wait_until_up(min(timeout_seconds, CONNECT_TIMEOUT_SECONDS)):
                raise BusUnavailable()
            channel = self._begin_batch()
            for message in messages:
                self._expect_confirm()
                self.link.send(channel, message)
            self._wait_for_confirms(channel, deadline)

    def _begin_batch(self) -> amqp.Channel:
        with self._settled:
            if self._channel is None:
                raise BusUnavailable()
            self._unsettled, self._refusals = set(), []
            return self._channel

    def _expect_confirm(self) -> None:
        with self._settled:
            self._tag_last += 1
            self._unsettled.add(self._tag_last)

    def _wait_for_confirms(self, channel: amqp.Channel, deadline: float) -> None:
        with self._settled:
            while self._unsettled and self._channel is channel:
                if not self._settled.wait(max(deadline - time.monotonic(), 0)) and time.monotonic() >= deadline:
                    self.link.drop()  # a late confirm must not be taken for one of the next batch
                    raise NotConfirmed()
            if self._channel is not channel:
                raise NotConfirmed("The connection was lost.")
            if self._refusals:
                raise NotConfirmed(self._refusals[0])

    def _open_channel(self, connection: amqp.Connection) -> None:
        channel = connection.channel()
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_settled)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)
        with self._settled:
            self._channel, self._tag_last, self._unsettled = channel, 0, set()

    def _close_channel(self) -> None:
        with self._settled:
            self._channel = None
            self._settled.notify_all()

    def _on_settled(self, delivery_tag: int, multiple: bool) -> None:
        with self._settled:
            if multiple:
                self._unsettled = {tag for tag in self._unsettled if tag > delivery_tag}
            else:
                self._unsettled.discard(delivery_tag)
            if not self._unsettled:
                self._settled.notify_all()

    def _on_nack(self, delivery_tag: int, multiple: bool) -> None:
        self._refusals.append("The broker refused a message.")
        self._on_settled(delivery_tag, multiple)

    def _on_return(self, _error: Exception, _exchange: str, routing_key: str, _message: amqp.Message) -> None:
        self._refusals.append(f"No queue takes {routing_key}.")
