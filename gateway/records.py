"""The record of every API call and of every failure, on its way to audit.

A call never waits for it: the record goes to a file (`spool.py`), and a thread carries files to the bus, in batches
that the broker confirms. Audit knows a record by its id, so that carrying one twice does no harm.
"""

import threading
import time
import uuid
from typing import Any, Protocol

import orjson
import structlog
from flask import Flask, Response, request

from gateway import metrics
from gateway.context import context
from gateway.spool import Spool, SpoolFull
from shared.contracts.gateway import ApiCalled, SystemErrorOccurred
from shared.errors import Unavailable
from shared.events import Envelope, Event
from shared.link import OutgoingMessage
from shared.masking import mask_text, secret_in
from shared.times import rfc3339, utc_now

log = structlog.get_logger(__name__)

EVENTS_EXCHANGE = "events"
CARRY_SECONDS = 0.5
RETRY_SECONDS = 2.0
ADOPT_SECONDS = 30.0
PATH_LENGTH_MAX = 300
EXTENSION = "countinghouse-recorder"


class Publisher(Protocol):
    """Publishes a batch and returns when the broker has it."""

    def publish(self, messages: list[OutgoingMessage], *, timeout_seconds: float) -> None: ...


class Recorder:
    """Keeps records until the bus has them."""

    def __init__(self, spool: Spool, publisher: Publisher) -> None:
        self._spool = spool
        self._publisher = publisher
        self._stop = threading.Event()
        self._adopt_at = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True, name="records")

    def start(self) -> None:
        """Begin to carry records to the bus."""
        self._thread.start()

    def stop(self, *, timeout_seconds: float = 5.0) -> None:
        """Carry what is left, or leave it on disk for the next process."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)
        self._spool.close()

    def record(self, envelope: Envelope) -> None:
        """Keep a record. A disk that takes no more must not stop a call: what is lost is counted."""
        try:
            self._spool.append(orjson.dumps(envelope))
        except (OSError, SpoolFull) as error:
            metrics.records_lost_total.inc()
            log.error("a record was lost", error=repr(error))
        metrics.records_waiting_bytes.set(self._spool.bytes_waiting)

    def carry_once(self) -> None:
        """Carry everything that waits. Raises: Unavailable, OSError, and then the rest waits on."""
        self._spool.hand_over(self._publish)
        if time.monotonic() > self._adopt_at:
            self._spool.adopt(self._publish)
            self._adopt_at = time.monotonic() + ADOPT_SECONDS
        metrics.records_waiting_bytes.set(self._spool.bytes_waiting)

    def _publish(self, lines: list[bytes]) -> None:
        self._publisher.publish([_message_of(line) for line in lines], timeout_seconds=10.0)

    def _run(self) -> None:
        is_last, pause_seconds = False, CARRY_SECONDS
        while not is_last:
            is_last = self._stop.wait(pause_seconds)
            try:
                self.carry_once()
                pause_seconds = CARRY_SECONDS
            except (Unavailable, OSError, ValueError) as error:
                pause_seconds = RETRY_SECONDS
                log.warning("records wait for the bus", error=str(error), bytes_waiting=self._spool.bytes_waiting)


def _message_of(line: bytes) -> OutgoingMessage:
    envelope: Envelope = orjson.loads(line)
    return OutgoingMessage(
        exchange=EVENTS_EXCHANGE,
        routing_key=f"{envelope['service']}.{envelope['event']}",
        body=line,
        properties={"message_id": envelope["event_id"]},
    )


def install(app: Flask, recorder: Recorder) -> None:
    """Record every call to the app's API."""
    app.extensions[EXTENSION] = recorder

    @app.after_request
    def observe(response: Response) -> Response:
        if response.is_streamed:
            # A stream has a status now and a duration later.
            call = _call_facts(response.status_code)
            response.call_on_close(lambda: _record(recorder, call))
        else:
            _record(recorder, _call_facts(response.status_code))
        return response


def _call_facts(status: int) -> tuple[Envelope, dict[str, Any], float]:
    current = context()
    route = str(request.url_rule).replace("<", "{").replace(">", "}") if request.url_rule else ""
    passport = current.passport
    claimed = current.merchant_id or request.args.get("merchant_id", "")[:64]
    # A row of a merchant is shown to whoever sees that merchant: nobody writes into the log of one they do not see.
    merchant_id = claimed if claimed and passport.sees(claimed) and not secret_in(claimed) else None
    facts = {
        "method": request.method,
        "route": route,
        "path": mask_text(request.path[:PATH_LENGTH_MAX]),
        "status": status,
        "outcome": outcome_of(status),
        "code": current.problem_code,
        "merchant_id": merchant_id,
        "permission": current.terms.permission,
    }
    name, value = next(iter((request.view_args or {}).items()), ("", ""))
    envelope: Envelope = {
        "event_id": "",
        "event": "",
        "service": "gateway",
        "occurred_at": rfc3339(utc_now()),
        "request_id": current.request_id,
        "actor": {"id": passport.actor_id, "name": passport.actor_name, "type": passport.actor_type},
        "ip": current.ip,
        "user_agent": current.user_agent,
        "action": request.endpoint or "no_route",
        "resource_type": name.removesuffix("_id"),
        "resource_id": mask_text(str(value)[:PATH_LENGTH_MAX]),
        "merchant_id": merchant_id,
        "payload": {},
    }
    return envelope, facts | {"error": current.error_class, "is_replayed": current.is_replayed}, current.started


def _record(recorder: Recorder, call: tuple[Envelope, dict[str, Any], float]) -> None:
    envelope, facts, started = call
    seconds = time.monotonic() - started
    metrics.requests_total.labels(facts["method"], facts["route"], facts["status"]).inc()
    metrics.request_seconds.labels(facts["method"], facts["route"]).observe(seconds)
    if not (facts["path"].startswith("/api/") or facts["status"] == 500):
        return  # health checks and pages are no API calls
    error, is_replayed = facts.pop("error"), facts.pop("is_replayed")
    facts["duration_ms"] = round(seconds * 1000, 3)
    recorder.record(_enclosed(ApiCalled(**facts, is_replayed=is_replayed), envelope))
    if facts["status"] >= 500:
        recorder.record(_enclosed(SystemErrorOccurred(**facts, error=error), envelope))


def _enclosed(event: Event, envelope: Envelope) -> Envelope:
    return envelope | {"event_id": uuid.uuid4().hex, "event": type(event).__name__, "payload": event.payload()}


def outcome_of(status: int) -> str:
    """Return what a status means to somebody who reads the log."""
    if status < 400:
        return "success"
    if status in (401, 403):
        return "denied"
    return "refused" if status < 500 else "failed"
