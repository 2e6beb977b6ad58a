"""Dead letters on a real broker: seen without being taken, delivered again, kept where no queue wants them."""

import json

import amqp
import pytest

from operations import dead_letters as subject
from operations.rabbitmq import connect

DEAD, QUEUE = "dead_letters", "events.audit.on_dead_letter_test"


@pytest.fixture
def url(servers):
    """The administrator's address, with an empty queue of dead letters and one that gave them up."""
    with connect(servers.servers.amqp_url) as connection:
        channel = connection.channel()
        for queue in (DEAD, QUEUE):
            channel.queue_declare(queue, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
            channel.queue_purge(queue)
    return servers.servers.amqp_url


def give_up(url, event_id, **headers):
    """Put an event among the dead letters, as a handler does."""
    body = json.dumps({"event_id": event_id, "event": "CardFrozen"})
    message = amqp.Message(body, message_id=event_id, application_headers=headers, delivery_mode=2)
    with connect(url, confirm_publish=True) as connection:
        connection.channel().basic_publish(message, exchange="", routing_key=DEAD)


def bodies_in(url, queue):
    with connect(url) as connection:
        channel = connection.channel()
        return [json.loads(message.body)["event_id"] for message in iter(lambda: channel.basic_get(queue), None)]


def test_list_tells_what_was_given_up_by_whom_and_why(url):
    give_up(url, "evt_1", **{"x-queue": QUEUE, "x-reason": "KeyError('merchant')", "x-attempt": 6})

    (letter,) = subject.list_messages(url, DEAD)

    assert letter == subject.DeadLetter("evt_1", "CardFrozen", QUEUE, 6, "KeyError('merchant')")


def test_list_leaves_everything_there(url):
    give_up(url, "evt_1", **{"x-queue": QUEUE})

    subject.list_messages(url, DEAD)

    assert len(subject.list_messages(url, DEAD)) == 1


def test_letter_of_the_broker_names_the_queue_of_its_history(url):
    give_up(url, "evt_1", **{"x-death": [{"queue": QUEUE, "reason": "delivery_limit"}]})

    (letter,) = subject.list_messages(url, DEAD)

    assert (letter.queue, letter.reason) == (QUEUE, "its consumers died of it")


def test_redrive_puts_each_back_into_the_queue_that_gave_it_up(url):
    for number in range(3):
        give_up(url, f"evt_{number}", **{"x-queue": QUEUE})

    assert subject.redrive(url, DEAD) == (3, 0)

    assert bodies_in(url, QUEUE) == ["evt_0", "evt_1", "evt_2"]
    assert subject.list_messages(url, DEAD) == []


def test_redrive_keeps_what_no_queue_wants(url):
    give_up(url, "evt_lost", **{"x-queue": "events.gone.for_ever"})
    give_up(url, "evt_1", **{"x-queue": QUEUE})

    assert subject.redrive(url, DEAD) == (1, 1)

    assert [letter.event_id for letter in subject.list_messages(url, DEAD)] == ["evt_lost"]


def test_message_that_is_no_event_is_listed_too(url):
    with connect(url, confirm_publish=True) as connection:
        connection.channel().basic_publish(amqp.Message("\x00 not json"), exchange="", routing_key=DEAD)

    (letter,) = subject.list_messages(url, DEAD)

    assert (letter.event, letter.queue) == ("?", "?")
