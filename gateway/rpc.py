"""Calls to the services: `call("cards", "freeze_card", card_id=…)` on behalf of the request being served."""

import time
from typing import Any, Protocol

from flask import current_app

from gateway import metrics
from gateway.breaker import Breaker, Bulkhead
from gateway.configuration import SERVICES
from gateway.context import context
from shared.errors import ServiceError, Unavailable, UpstreamFailed
from shared.passport import Passport, service_passport
from shared.rpc.client import TooManyCalls
from shared.rpc.wire import Answer

EXTENSION = "countinghouse-bus"
GATEWAY = service_passport("gateway")


class Client(Protocol):
    """The kernel's RPC client, or a fake of it."""

    @property
    def is_up(self) -> bool: ...

    def call(
        self,
        service: str,
        method: str,
        *,
        passport: Passport,
        timeout: float,
        idempotency_key: str | None = None,
        **arguments: Any,
    ) -> Answer: ...


class Bus:
    """The services as this process reaches them, each behind its own breaker and bulkhead."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._breakers = {service: Breaker() for service in SERVICES}
        self._bulkheads = {service: Bulkhead() for service in SERVICES}

    def call(
        self,
        service: str,
        method: str,
        /,
        *,
        passport: Passport,
        timeout_seconds: float,
        idempotency_key: str | None = None,
        **arguments: Any,
    ) -> Answer:
        """Call a service. Raises: what the service raised, or Unavailable and its subclasses."""
        self._breakers[service].admit()
        with self._bulkheads[service].slot(timeout_seconds):
            return self._observed(service, method, passport, timeout_seconds, idempotency_key, arguments)

    def call_for_gateway(self, service: str, method: str, /, *, timeout_seconds: float, **arguments: Any) -> Any:
        """Call a service on the gateway's own account, as authentication does before there is a caller."""
        return self.call(service, method, passport=GATEWAY, timeout_seconds=timeout_seconds, **arguments).result

    def ping(self, service: str, *, timeout_seconds: float) -> dict[str, Any]:
        """Ask a service how it is, past its breaker: an answer closes the breaker again."""
        answer = self._observed(service, "ping", GATEWAY, timeout_seconds, None, {})
        return dict(answer.result)

    @property
    def is_up(self) -> bool:
        """Whether the message bus answers."""
        return self._client.is_up

    def is_cut_off(self, service: str) -> bool:
        """Return whether calls to the service are refused right now."""
        return self._breakers[service].is_open

    def _observed(
        self,
        service: str,
        method: str,
        passport: Passport,
        timeout_seconds: float,
        idempotency_key: str | None,
        arguments: dict[str, Any],
    ) -> Answer:
        started, outcome = time.monotonic(), "answered"
        breaker = self._breakers[service]
        try:
            with metrics.rpc_in_flight.labels(service).track_inprogress():
                answer = self._client.call(
                    service,
                    method,
                    passport=passport,
                    timeout=timeout_seconds,
                    idempotency_key=idempotency_key,
                    **arguments,
                )
        except Unavailable as error:
            outcome = error.code
            # An upstream's failure is an answer: the service is well. Too many calls are our own affair.
            if isinstance(error, UpstreamFailed):
                breaker.answered()
            elif not isinstance(error, TooManyCalls):
                breaker.failed()
            raise
        except ServiceError as error:
            outcome = error.code
            breaker.answered()
            raise
        finally:
            metrics.rpc_seconds.labels(service, method, outcome).observe(time.monotonic() - started)
        breaker.answered()
        return answer


def bus() -> Bus:
    """Return the app's bus."""
    found: Bus = current_app.extensions[EXTENSION]
    return found


def call(service: str, method: str, /, **arguments: Any) -> Any:
    """Call a service for the request being served: its passport, idempotency key and what is left of its time.

    Raises: what the service raised, or Unavailable and its subclasses, by the request's deadline.
    """
    current = context()
    answer = bus().call(
        service,
        method,
        passport=current.passport,
        timeout_seconds=current.seconds_left(),
        idempotency_key=current.idempotency_key,
        **arguments,
    )
    current.is_replayed = current.is_replayed or answer.is_replayed
    return answer.result
