"""Idempotency keys: one request, one effect, one answer, whatever breaks in between.

The key's row is written in the transaction of the effect. While that runs, an advisory lock says so to others.
Source: API.md "Idempotency-Key"; RELIABILITY.md R18.
"""

import orjson
import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.errors import (
    IdempotencyAnswerNotKept,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    ServiceError,
)
from shared.rpc.wire import Answer, Call

KEEP_DAYS = 7  # the contract promises 24 hours

_CLAIM = sa.text(
    """
    with mine as materialized (select pg_try_advisory_xact_lock(hashtextextended(:caller || ' ' || :key, 0)) as is_mine)
    select is_mine, request_hash, answer, error
      from mine left join idempotency_keys on caller = :caller and key = :key
    """
)

_KEEP = sa.text(
    "insert into idempotency_keys (caller, key, request_hash, answer, error)"
    " values (:caller, :key, :request_hash, :answer, :error)"
)


def claim(session: Session, call: Call) -> Answer | None:
    """Claim the call's key for this transaction.

    Returns: the first answer, if the request was carried out before; None if it is to be carried out now.
    Raises, in order: IdempotencyInProgress; IdempotencyKeyReused; the refusal that was the first answer;
    IdempotencyAnswerNotKept.
    """
    row = session.execute(_CLAIM, {"caller": call.passport.actor_id, "key": call.idempotency_key}).one()
    if not row.is_mine:
        raise IdempotencyInProgress(retry_after_seconds=1)
    if row.request_hash is None:
        return None
    return replay(call, row.request_hash, row.answer, row.error)


def replay(call: Call, request_hash: str, answer: str | None, error: str | None) -> Answer:
    """Return the answer in a key's row, marked as replayed.

    Raises, in order: IdempotencyKeyReused; the refusal that was the first answer; IdempotencyAnswerNotKept.
    """
    if request_hash != call.request_hash:
        raise IdempotencyKeyReused()
    if error is not None:
        refusal = ServiceError.from_wire(orjson.loads(error))
        refusal.extra["is_replayed"] = True
        raise refusal
    if answer is None:
        raise IdempotencyAnswerNotKept()
    return Answer(orjson.loads(answer), is_replayed=True)


def refusal_to_keep(call: Call, refusal: ServiceError) -> str:
    """Return a refusal as it is kept: with the request id that its first answer bore."""
    wire = refusal.to_wire()
    wire["extra"] = {**wire["extra"], "request_id": call.passport.request_id}
    return orjson.dumps(wire).decode()


def keep(session: Session, call: Call, *, answer: Answer | None = None, refusal: ServiceError | None = None) -> None:
    """Write the call's outcome under its key, in the transaction of its effect.

    answer: None where it holds a secret that must not be kept. An answer that says nothing is one, too.
    """
    row = {
        "caller": call.passport.actor_id,
        "key": call.idempotency_key,
        "request_hash": call.request_hash,
        "answer": None if answer is None else orjson.dumps(answer.result).decode(),
        "error": None if refusal is None else refusal_to_keep(call, refusal),
    }
    session.execute(_KEEP, row)


def forget_old(session: Session) -> None:
    """Delete the keys that nobody may count on any more."""
    session.execute(
        sa.text("delete from idempotency_keys where created_at < now() - make_interval(days => :days)"),
        {"days": KEEP_DAYS},
    )
