"""The messages that no handler could take: see them, and deliver them again."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import amqp

from operations.rabbitmq import connect

LISTED_MAX = 1000
UNKNOWN = "?"


@dataclass(frozen=True)
class DeadLetter:
    """A message that was given up: what it told, who gave it up, and why."""

    event_id: str
    event: str
    queue: str
    attempts: int
    reason: str


def list_messages(amqp_url: str, queue: str) -> list[DeadLetter]:
    """Return what lies in a queue, oldest first, and leave it there."""
    with closing(connect(amqp_url)) as connection:
        # Closing the connection gives everything back that was not acknowledged.
        return [_letter(message) for message in _messages(connection.channel(), queue)]


def redrive(amqp_url: str, queue: str) -> tuple[int, int]:
    """Put every message back into the queue that gave it up, each confirmed before it leaves here.

    Returns: how many went back, how many are left because no queue wants them.
    """
    moved = 0
    refused: list[amqp.Message] = []
    with closing(connect(amqp_url, confirm_publish=True)) as connection:
        channel = connection.channel()
        for message in _messages(channel, queue):
            if _put_back(channel, message):
                channel.basic_ack(message.delivery_tag)
                moved += 1
            else:
                refused.append(message)
    return moved, len(refused)


def _messages(channel: amqp.Channel, queue: str) -> Iterator[amqp.Message]:
    for _ in range(LISTED_MAX):
        message = channel.basic_get(queue)
        if message is None:
            return
        yield message


def _put_back(channel: amqp.Channel, message: amqp.Message) -> bool:
    body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
    again = amqp.Message(
        body,
        content_type="application/json",
        delivery_mode=2,
        message_id=str(message.properties.get("message_id", "")),
    )
    returned: list[object] = []
    channel.events["basic_return"].add(lambda *arguments: returned.append(arguments))
    channel.basic_publish(again, exchange="", routing_key=_queue_of(message), mandatory=True, timeout=10)
    channel.events["basic_return"].clear()
    return not returned


def _queue_of(message: amqp.Message) -> str:
    """Return who gave a message up: a handler says so itself, the broker writes the history of its moves."""
    headers = message.headers or {}
    deaths: list[dict[str, Any]] = headers.get("x-death") or [{}]
    return str(headers.get("x-queue") or deaths[0].get("queue") or UNKNOWN)


def _letter(message: amqp.Message) -> DeadLetter:
    headers = message.headers or {}
    try:
        envelope = json.loads(message.body)
        event_id, event = str(envelope["event_id"]), str(envelope["event"])
    except (ValueError, KeyError, TypeError):
        event_id, event = str(message.properties.get("message_id", UNKNOWN)), UNKNOWN
    reason = str(headers.get("x-reason") or "its consumers died of it")
    return DeadLetter(event_id, event, _queue_of(message), int(headers.get("x-attempt") or 0), reason)
