"""Permissions on the bus, asked of a real broker: everybody may do their part, and nothing of somebody else's."""

import amqp
import pytest

from operations.bus import bus_users
from operations.rabbitmq import connect


@pytest.fixture(scope="module")
def topology(servers):
    """A few queues and exchanges by the names that the real topology has."""
    with connect(servers.servers.amqp_url) as connection:
        channel = connection.channel()
        for name, kind in (("rpc", "direct"), ("replies", "direct"), ("events", "topic"), ("retry.1000", "fanout")):
            channel.exchange_declare(name, kind, durable=True, auto_delete=False)
        for queue in ("rpc.ledger", "rpc.users", "events.audit.on_event", "events.ledger.on_parameter_changed"):
            channel.queue_declare(queue, durable=True, auto_delete=False)
    return servers


def channel_of(system, user):
    """Return a channel that waits for the broker's word after each publish."""
    return connect(system.servers.user_amqp_url(user), confirm_publish=True).channel()


@pytest.mark.parametrize(("user", "queue"), [("ledger", "rpc.ledger"), ("audit", "events.audit.on_event")])
def test_service_takes_from_its_own_queues(topology, user, queue):
    assert channel_of(topology, user).basic_consume(queue)


@pytest.mark.parametrize(
    ("user", "queue"),
    [
        ("ledger", "rpc.users"),
        ("ledger", "events.audit.on_event"),
        ("gateway", "rpc.ledger"),
        ("gateway", "events.audit.on_event"),
    ],
)
def test_nobody_takes_from_the_queues_of_others(topology, user, queue):
    with pytest.raises(amqp.AccessRefused):
        channel_of(topology, user).basic_consume(queue)


@pytest.mark.parametrize("user", ["ledger", "gateway"])
def test_everybody_declares_the_queue_of_their_own_replies(topology, user):
    channel = channel_of(topology, user)
    queue = f"reply.{user}-1.0123abcd"

    channel.queue_declare(queue, exclusive=True, auto_delete=True)
    channel.queue_bind(queue, "replies", queue)

    assert channel.basic_consume(queue)


@pytest.mark.parametrize("name", ["rpc.ledger", "events.ledger.more", "reply.users-1.0123abcd", "anything"])
def test_service_declares_nothing_else(topology, name):
    with pytest.raises(amqp.AccessRefused):
        channel_of(topology, "ledger").queue_declare(name, exclusive=True)


def test_service_tells_its_own_events(topology):
    channel = channel_of(topology, "cards")

    channel.basic_publish(amqp.Message("{}"), exchange="events", routing_key="cards.CardFrozen")
    channel.basic_publish(amqp.Message("{}"), exchange="events", routing_key="system.SystemErrorOccurred")


@pytest.mark.parametrize("user", ["ledger", "gateway"])
def test_nobody_tells_the_events_of_others(topology, user):
    with pytest.raises(amqp.AccessRefused):
        channel_of(topology, user).basic_publish(
            amqp.Message("{}"), exchange="events", routing_key="users.UserDisabled"
        )


def test_service_may_not_put_a_message_straight_into_a_queue(topology):
    with pytest.raises(amqp.AccessRefused):
        channel_of(topology, "telegram").basic_publish(amqp.Message("{}"), exchange="", routing_key="rpc.ledger")


def test_gateway_calls_services_and_answers_nobody(topology):
    channel = channel_of(topology, "gateway")
    channel.basic_publish(amqp.Message("{}"), exchange="rpc", routing_key="ledger")

    with pytest.raises(amqp.AccessRefused):
        channel.basic_publish(amqp.Message("{}"), exchange="replies", routing_key="reply.ledger-1.0123abcd")


def test_only_the_administrator_has_a_tag():
    assert [user.name for user in bus_users() if user.tags] == ["administrator"]
