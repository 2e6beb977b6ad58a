"""The outbox: events are written with the change they tell of, and put on the bus afterwards, until confirmed.

Source: RELIABILITY.md R4. The relay deletes a batch, publishes it, and commits when the broker has it: whatever
dies in between, the rows are there again, and consumers know an event by its id.
"""

import threading
import time
import uuid
from typing import Any

import orjson
import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from shared import idempotency, inbox
from shared.events import Envelope, Event
from shared.link import OutgoingMessage
from shared.masking import mask_text, mask_typed
from shared.publishing import ConfirmedPublisher
from shared.rpc.wire import Call, current_call
from shared.times import rfc3339, utc_now

log = structlog.get_logger(__name__)

EVENTS_EXCHANGE = "events"
RELAY_BATCH = 500
RELAY_PAUSE_SECONDS = 0.5
RELAY_GATHER_SECONDS = 0.02  # what commits meanwhile shares a transaction and a confirm
HOUSEKEEPING_SECONDS = 3600
_HAS_EVENTS = "has_events"

# As text here and in `idempotency`: each command pays for these, and building them costs more than running them.
_ADD = sa.text("insert into outbox (event_id, routing_key, envelope) values (:event_id, :routing_key, :envelope)")


def envelope_of(event: Event, call: Call) -> Envelope:
    """Return the event's envelope: who did what in which call, beside the event's own fields.

    What looks like a card number or a token in a text that people type is masked here, before the row is written: the
    broker keeps what it carries on its disk.
    """
    passport = call.passport
    return {
        "event_id": uuid.uuid4().hex,
        "event": type(event).__name__,
        "service": call.service,
        "occurred_at": rfc3339(utc_now()),
        "request_id": passport.request_id,
        "actor": {"id": passport.actor_id, "name": mask_text(passport.actor_name), "type": passport.actor_type},
        "ip": passport.ip,
        "user_agent": passport.user_agent,
        "action": call.action,
        "resource_type": event.resource_type,
        "resource_id": event.resource_id(),
        "merchant_id": getattr(event, "merchant_id", None),
        "payload": mask_typed(event.payload()),
    }


def outbox_row(event: Event, call: Call) -> dict[str, str]:
    """Return the row that stands for the event until it is on the bus."""
    envelope = envelope_of(event, call)
    return {
        "event_id": envelope["event_id"],
        "routing_key": event.routing_key(),
        "envelope": orjson.dumps(envelope).decode(),
    }


def add(session: Session, *events: Event) -> None:
    """Tell of events when, and only when, the session's transaction commits. Actor and request are the call's."""
    if events:
        session.execute(_ADD, [outbox_row(event, current_call.get()) for event in events])
        session.info[_HAS_EVENTS] = True


def has_events(session: Session) -> bool:
    """Return whether this session has told of anything."""
    return bool(session.info.get(_HAS_EVENTS))


_TAKE = sa.text(
    """
    delete from outbox where id in (select id from outbox order by id limit :batch for update skip locked)
    returning id, event_id, routing_key, envelope
    """
)


class Relay:
    """Carries the outbox to the bus, from one thread, woken by each commit that wrote to it."""

    def __init__(self, engine: sa.Engine, publisher: ConfirmedPublisher) -> None:
        self._engine = engine
        self._publisher = publisher
        self._wake = threading.Event()
        self._is_stopping = False
        self._housekeeping_at = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True, name="outbox-relay")

    def start(self) -> None:
        """Begin to carry."""
        self._thread.start()

    def stop(self) -> None:
        """Carry what is there, once, and end."""
        self._is_stopping = True
        self._wake.set()
        self._thread.join(5)

    def wake(self) -> None:
        """Say that there is something to carry."""
        self._wake.set()

    def carry_once(self) -> int:
        """Carry one batch. Returns: how many events. Raises: Unavailable, and then all of them are still here."""
        with self._engine.begin() as connection:
            rows = sorted(connection.execute(_TAKE, {"batch": RELAY_BATCH}).all())
            if rows:
                self._publisher.publish(_message_of(row) for row in rows)
            return len(rows)

    def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                carried = self.carry_once()
                self._keep_house()
            except Exception as error:  # whatever it was, the events are still here: the next look tries again
                log.warning("outbox waits", error=str(error).split("\n")[0])
                carried = 0
            if self._is_stopping:
                return
            if carried < RELAY_BATCH and self._wake.wait(RELAY_PAUSE_SECONDS) and not self._is_stopping:
                time.sleep(RELAY_GATHER_SECONDS)

    def _keep_house(self) -> None:
        if time.monotonic() < self._housekeeping_at:
            return
        self._housekeeping_at = time.monotonic() + HOUSEKEEPING_SECONDS
        with Session(self._engine) as session:
            idempotency.forget_old(session)
            inbox.forget_old(session)
            session.commit()


def _message_of(row: Any) -> OutgoingMessage:
    return OutgoingMessage(
        exchange=EVENTS_EXCHANGE,
        routing_key=row.routing_key,
        body=row.envelope.encode(),
        properties={"message_id": row.event_id},
    )


def backlog(connection: sa.Connection) -> dict[str, float]:
    """Return how many events wait for the bus, and for how long the oldest has."""
    row = connection.execute(
        sa.text(
            "select count(*) as pending, coalesce(extract(epoch from now() - min(created_at)), 0) as oldest_seconds"
            " from (select created_at from outbox order by id limit 10001) as waiting"
        )
    ).one()
    return {"pending": row.pending, "oldest_seconds": float(row.oldest_seconds)}
