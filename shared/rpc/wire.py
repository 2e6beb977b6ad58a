"""How a call and its answer look on the bus: a sealed JSON body, and headers that hold no secret."""

import hmac
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson

from shared.errors import ServiceError
from shared.masking import secret_in
from shared.passport import Passport, sign_passport, verify_passport
from shared.sealing import BrokenSeal, seal, unseal

RPC_EXCHANGE = "rpc"
REPLIES_EXCHANGE = "replies"


class MalformedMessage(Exception):
    """Not a message of ours: it belongs in quarantine."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request as the called service sees it, after its passport was checked."""

    service: str
    method: str
    passport: Passport
    arguments: dict[str, Any]
    idempotency_key: str | None = None
    deadline: float = float("inf")
    is_redelivered: bool = False
    hash_key: bytes = field(default=b"", repr=False)

    @property
    def action(self) -> str:
        """The word for this act in events and logs: `cards.freeze_card`."""
        return f"{self.service}.{self.method}"

    @property
    def seconds_left(self) -> float:
        """How long the caller still waits."""
        return self.deadline - time.time()

    @cached_property
    def request_hash(self) -> str:
        """What this request is, so that an idempotency key cannot be used for another one.

        It is stored, and a card number among known arguments would soon be guessed from a plain hash: hence the key.
        """
        canonical = orjson.dumps([self.action, self.arguments], option=orjson.OPT_SORT_KEYS)
        return hmac.digest(self.hash_key, b"request " + canonical, "sha256").hex()


current_call: ContextVar[Call] = ContextVar("current_call")


def kept_key(idempotency_key: str | None, *, key: bytes) -> str | None:
    """Return an idempotency key as messages and tables may hold it: one that looks like a secret as its keyed hash."""
    if idempotency_key is None or secret_in(idempotency_key) is None:
        return idempotency_key
    return f"hidden-{hmac.digest(key, b'idempotency key ' + idempotency_key.encode(), 'sha256').hex()}"


def pack_call(call: Call, *, key: bytes, correlation_id: str) -> bytes:
    """Return the sealed body of a call."""
    passport = sign_passport(call.passport, service=call.service, key=key)
    return seal_json({"passport": passport, "arguments": call.arguments}, key, f"{call.action} {correlation_id}")


def unpack_call(
    body: bytes, headers: dict[str, Any], *, service: str, key: bytes, correlation_id: str, is_redelivered: bool
) -> Call:
    """Return the call in a message.

    Raises, in order: MalformedMessage for what is not sealed for us or lacks a part; InvalidPassport.
    """
    try:
        method, request_id = str(headers["method"]), str(headers["request_id"])
        deadline = float(headers["deadline"])
        content = unseal_json(body, key, f"{service}.{method} {correlation_id}")
        token, arguments = str(content["passport"]), dict(content["arguments"])
    except (KeyError, TypeError, ValueError, BrokenSeal) as error:
        raise MalformedMessage(repr(error)) from error
    return Call(
        service=service,
        method=method,
        passport=verify_passport(token, service=service, key=key, request_id=request_id),
        arguments=arguments,
        idempotency_key=headers.get("idempotency_key"),
        deadline=deadline,
        is_redelivered=is_redelivered,
        hash_key=key,
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to. `is_replayed` says that it was carried out before, under the same idempotency key."""

    result: Any
    is_replayed: bool = False


def pack_answer(outcome: Answer | ServiceError, *, key: bytes, correlation_id: str) -> bytes:
    """Return the sealed body of an answer or of a refusal."""
    if isinstance(outcome, ServiceError):
        content: dict[str, Any] = {"error": outcome.to_wire()}
    else:
        content = {"result": outcome.result, "is_replayed": outcome.is_replayed}
    return seal_json(content, key, f"answer {correlation_id}")


def unpack_answer(body: bytes, *, key: bytes, correlation_id: str) -> Answer:
    """Return the answer in a message.

    Raises: the ServiceError that the other side raised; MalformedMessage.
    """
    try:
        content = unseal_json(body, key, f"answer {correlation_id}")
    except (BrokenSeal, ValueError) as error:
        raise MalformedMessage(repr(error)) from error
    if "error" in content:
        raise ServiceError.from_wire(content["error"])
    return Answer(content["result"], content["is_replayed"])


def seal_json(content: Any, key: bytes, purpose: str) -> bytes:
    """Return JSON primitives sealed for one purpose."""
    return seal(orjson.dumps(content), key=key, purpose=purpose)


def unseal_json(body: bytes, key: bytes, purpose: str) -> Any:
    """Return what `seal_json` sealed. Raises: BrokenSeal, ValueError."""
    return orjson.loads(unseal(body, key=key, purpose=purpose))
