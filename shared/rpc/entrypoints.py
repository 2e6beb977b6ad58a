"""What a service declares its methods with: `@command`, `@query` and, for special paths, `@rpc`.

Each checks the permission first and works within the caller's deadline. A command is one transaction, which also
holds its events and, under the caller's idempotency key, its answer.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import sqlalchemy as sa
import structlog
from nameko.extensions import DependencyProvider, SharedExtension, register_entrypoint
from sqlalchemy.orm import Session

from shared import idempotency
from shared.config import process_config
from shared.contracts.users import MerchantMissing
from shared.errors import Conflict, NotFound, ServiceError
from shared.logs import request_id_var
from shared.rpc.client import RpcClient as SharedClient
from shared.rpc.server import RpcEntrypoint
from shared.rpc.wire import Answer, Call, current_call

log = structlog.get_logger(__name__)

KEPT_REFUSALS = (Conflict, NotFound)  # what would be refused again; an invalid request did not begin


def command(permission: str | None, *, stores_answer: bool = True) -> Callable[[Any], Any]:
    """Declare a method that changes something: `(self, session, passport, **arguments)`.

    permission: as `cards:operate`, or None where a passport is enough.
    stores_answer: False where the answer holds a secret; the same key then answers 409 instead of the secret.
    """

    def decorate(method: Any) -> Any:
        @wraps(method)
        def run(self: Any, call: Call) -> Answer | ServiceError:
            return _in_call(self, call, permission, lambda: carry_out(self, call, method, stores_answer=stores_answer))

        register_entrypoint(run, RpcEntrypoint(is_repeatable=False))
        return run

    return decorate


def carry_out(service: Any, call: Call, method: Any, *, stores_answer: bool = True) -> Answer:
    """Do a call as a command does: one transaction, under its idempotency key. For `rpc` methods that prepare first.

    method: `(service, session, passport, **arguments)`.
    Raises: what the method raises.
    """
    try:
        answer: Answer = service.database.run(lambda session: _carry_out(method, service, session, call, stores_answer))
    except _Refused as refused:
        refusal = refused.refusal
    else:
        return answer
    service.database.run(lambda session: _keep_refusal(session, call, refusal))
    raise refusal


class _Refused(Exception):
    """Leaves the transaction of a command that was refused, so that nothing of it stays."""

    def __init__(self, refusal: ServiceError) -> None:
        self.refusal = refusal


def _carry_out(method: Any, service: Any, session: Session, call: Call, stores_answer: bool) -> Answer:
    """Do the command, under its idempotency key if it has one."""
    if call.idempotency_key is None:
        return Answer(method(service, session, call.passport, **call.arguments))
    first = idempotency.claim(session, call)
    if first is not None:
        return first
    try:
        result = method(service, session, call.passport, **call.arguments)
    except MerchantMissing:
        raise  # we may hear of it yet
    except KEPT_REFUSALS as refusal:
        raise _Refused(refusal) from None
    answer = Answer(result)
    idempotency.keep(session, call, answer=answer if stores_answer else None)
    return answer


def _keep_refusal(session: Session, call: Call, refusal: ServiceError) -> None:
    """Keep a refusal as the key's answer, unless the same request was answered meanwhile."""
    if idempotency.claim(session, call) is None:
        idempotency.keep(session, call, refusal=refusal)


def query(permission: str | None) -> Callable[[Any], Any]:
    """Declare a method that only reads, all of it at one instant: `(self, session, passport, **arguments)`."""

    def decorate(method: Any) -> Any:
        @wraps(method)
        def run(self: Any, call: Call) -> Answer | ServiceError:
            def read(session: Session) -> Answer:
                session.execute(sa.text("set transaction isolation level repeatable read, read only"))
                return Answer(method(self, session, call.passport, **call.arguments))

            return _in_call(self, call, permission, lambda: self.database.run(read))

        register_entrypoint(run, RpcEntrypoint(is_repeatable=True))
        return run

    return decorate


def rpc(permission: str | None, *, is_repeatable: bool = False) -> Callable[[Any], Any]:
    """Declare a method that sees to its own transactions: `(self, passport, **arguments)` → a result or an Answer.

    is_repeatable: whether it may run twice for one call, when the process that took it first has died.
    """

    def decorate(method: Any) -> Any:
        @wraps(method)
        def run(self: Any, call: Call) -> Answer | ServiceError:
            def work() -> Answer:
                result = method(self, call.passport, **call.arguments)
                return result if isinstance(result, Answer) else Answer(result)

            return _in_call(self, call, permission, work)

        register_entrypoint(run, RpcEntrypoint(is_repeatable=is_repeatable))
        return run

    return decorate


def _in_call(service: Any, call: Call, permission: str | None, work: Callable[[], Answer]) -> Answer | ServiceError:
    """Check the permission and do the work, with the call known to outbox and logs. A refusal is a value here.

    A service that has a method `admit` is asked, too, whether it takes the call; it raises where it does not.
    """
    call_token, log_token = current_call.set(call), request_id_var.set(call.passport.request_id)
    try:
        if permission is not None:
            call.passport.require(permission)
        if (admit := getattr(service, "admit", None)) is not None:
            admit(call)
        return _with_merchants(service, work)
    except ServiceError as refusal:
        return refusal
    finally:
        current_call.reset(call_token)
        request_id_var.reset(log_token)


def _with_merchants(service: Any, work: Callable[[], Answer]) -> Answer:
    """Do the work, and again after fetching each merchant that this service had not heard of yet."""
    fetched: set[str] = set()
    while True:
        try:
            return work()
        except MerchantMissing as missing:
            if missing.merchant_id in fetched:
                raise
            service.merchants.fetch(missing.merchant_id)
            fetched.add(missing.merchant_id)


class Caller(SharedExtension):
    """The process's one client, shared by all that call from it."""

    def setup(self) -> None:
        config = process_config()
        self.client = SharedClient(config.amqp_url, config.callee_keys, name=f"{config.service}.{config.instance}")

    def start(self) -> None:
        self.client.start()

    def stop(self) -> None:
        self.client.stop()


class RpcClient(DependencyProvider):
    """Another service, as a dependency: `self.ledger.call("verify_ledger", passport=…)` → its result."""

    caller = Caller()

    def __init__(self, service: str) -> None:
        self.service = service

    def get_dependency(self, worker_ctx: Any) -> "RpcClient":
        return self

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the service and return its result. Takes and raises what the shared client does."""
        return self.caller.client.call(self.service, method, **arguments).result
