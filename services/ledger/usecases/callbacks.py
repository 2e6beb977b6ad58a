"""Callbacks: what a payment platform tells by itself. Nothing in one is believed before its signature was checked.

Where the platform can be asked, it is asked before an order follows: outside every transaction, one at a time for an
order, so that a crowd of callbacks asks once.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256
from threading import Lock
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from services.ledger.adapters.answers import Channel
from services.ledger.cipher import ChannelCipher
from services.ledger.domain.payments import Outcome, Payment, outcome_of, read_payment
from services.ledger.models.callbacks import callbacks
from services.ledger.signatures import ID_HEADER, BadSignature, check_signature
from services.ledger.usecases.payments import (
    Books,
    Report,
    acting_for,
    ask_channel,
    find_order,
    open_channel,
    take_answer,
    take_report,
    tell_report,
)
from shared.contracts.channels import CallbackRefused, CallbackTooLarge, CallbackView, ChannelUnreachable
from shared.errors import InvalidRequest
from shared.passport import Passport

BODY_BYTES_MAX: Final = 64 * 1024
RETRY_AFTER_SECONDS: Final = 30
# So that a callback to no channel, or to one without secrets, takes the time of one that is signed wrongly.
_NOBODYS_SECRET: Final = "whsec_" + "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB"


class Turns:
    """One at a time for each key, in this process."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._locks: dict[Any, Lock] = {}
        self._waiting: Counter[Any] = Counter()

    @contextmanager
    def of(self, key: Any) -> Iterator[None]:
        """Wait for the turn of this key."""
        with self._guard:
            lock = self._locks.setdefault(key, Lock())
            self._waiting[key] += 1
        try:
            with lock:
                yield
        finally:
            with self._guard:
                self._waiting[key] -= 1
                if not self._waiting[key]:
                    del self._locks[key], self._waiting[key]


_turns = Turns()


def receive_callback(
    books: Books,
    cipher: ChannelCipher,
    *,
    code: str,
    headers: Mapping[str, str],
    body: str,
    allowed: frozenset[str],
) -> CallbackView:
    """Take a platform's word on a payment, once, however often and however concurrently it is delivered.

    headers: those of Standard Webhooks, by names in lower case.
    body: as it came, byte for byte, which is what is signed.
    Raises, in order: CallbackTooLarge; CallbackRefused, alike for an unknown channel, a disabled one and a bad
    signature; InvalidRequest; ChannelUnreachable, and then the platform is to deliver again.
    Emits: UpstreamReported; and what the order's own act emits.
    Idempotent: on the webhook's id, which is noted in the transaction of the effect.
    """
    raw = body.encode()
    if len(raw) > BODY_BYTES_MAX:
        raise CallbackTooLarge
    claimed_id = headers.get(ID_HEADER, "")
    channel, known = books.run(lambda session: (open_channel(session, cipher, code), _known(session, code, claimed_id)))
    webhook_id, signed_at = _checked(channel, headers, raw)
    if known is not None:
        return _view(known)
    payment = _read(raw, channel, signed_at)
    with acting_for(channel) as passport:
        report = Report(payment, "callback", webhook_id)
        digest = sha256(raw).digest()
        if not channel.is_askable:
            return _take(books, passport, channel, report, digest)
        with _turns.of((code, payment.order_no)):
            return _ask_and_take(books, passport, channel, report, digest, allowed)


def _checked(channel: Channel | None, headers: Mapping[str, str], body: bytes) -> tuple[str, datetime]:
    secrets = channel.callback_secrets if channel is not None else []
    try:
        message = check_signature(secrets or [_NOBODYS_SECRET], headers, body)
    except BadSignature:
        raise CallbackRefused from None
    if not secrets:
        raise CallbackRefused
    return message


def _read(body: bytes, channel: Channel, signed_at: datetime) -> Payment:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidRequest("The body is not JSON.") from None
    return read_payment(content, statuses=channel.statuses, default_time=signed_at)


def _ask_and_take(
    books: Books, passport: Passport, channel: Channel, report: Report, digest: bytes, allowed: frozenset[str]
) -> CallbackView:
    payment = report.payment
    order = books.run(lambda session: find_order(session, channel, payment.order_no))
    if outcome_of(order, payment) not in (Outcome.SETTLED, Outcome.FAILED):
        return _take(books, passport, channel, report, digest)
    answer = ask_channel(
        books,
        channel,
        order_no=payment.order_no,
        upstream_ref=payment.upstream_ref,
        asked_for="callback",
        allowed=allowed,
    )
    if answer.fault is not None:
        raise ChannelUnreachable(retry_after_seconds=RETRY_AFTER_SECONDS)
    return _take(books, passport, channel, report, digest, answered=answer.payments)


def _take(
    books: Books,
    passport: Passport,
    channel: Channel,
    report: Report,
    digest: bytes,
    *,
    answered: Sequence[Payment] | None = None,
) -> CallbackView:
    """Note the callback and let the order follow, in one transaction.

    answered: the order's payments as the platform has them, which count; None where it was not asked.
    """
    threshold = books.threshold()

    def work(session: Session) -> Any:
        known = _known(session, channel.code, report.webhook_id or "", is_locked=True)
        if known is not None:
            return known
        if answered is None:
            outcome = take_report(session, passport, channel, report, threshold=threshold)
        elif all(payment.upstream_ref != report.payment.upstream_ref for payment in answered):
            order = find_order(session, channel, report.payment.order_no)
            outcome = Outcome.NOT_CONFIRMED
            tell_report(session, channel, report, outcome, order)
        else:
            outcome, lead = take_answer(
                session, passport, channel, answered, threshold=threshold, webhook_id=report.webhook_id
            )
            if outcome is Outcome.NOTED and lead.status != report.payment.status:
                outcome = Outcome.NOT_CONFIRMED
        return _note(session, channel, report, digest, outcome)

    return _view(books.run(work))


def _known(session: Session, code: str, webhook_id: str, *, is_locked: bool = False) -> Any:
    """Return what a callback came to before, or None.

    is_locked: another delivery of it waits from here on, until this transaction has ended.
    """
    if is_locked:
        lock = sa.text("select pg_advisory_xact_lock(hashtextextended('callback ' || :channel || ' ' || :id, 0))")
        session.execute(lock, {"channel": code, "id": webhook_id})
    query = sa.select(callbacks).where(callbacks.c.channel == code, callbacks.c.webhook_id == webhook_id)
    return session.execute(query).first()


def _note(session: Session, channel: Channel, report: Report, digest: bytes, outcome: Outcome) -> Any:
    values = {
        "channel": channel.code,
        "webhook_id": report.webhook_id,
        "body_sha256": digest,
        "order_no": report.payment.order_no,
        "upstream_ref": report.payment.upstream_ref,
        "outcome": outcome.value,
    }
    return session.execute(postgresql.insert(callbacks).values(values).returning(callbacks)).one()


def _view(row: Any) -> CallbackView:
    return {"outcome": row.outcome, "order_no": row.order_no, "upstream_ref": row.upstream_ref}
