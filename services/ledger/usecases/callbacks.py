"""Callbacks: what a payment platform tells by itself. Nothing in one is believed before its signature was checked.

Where the platform can be asked, it is asked before an order follows: outside every transaction, one at a time for an
order, so that a crowd of callbacks asks once.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
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
from services.ledger.models.channels import channels
from services.ledger.signatures import ID_HEADER, BadSignature, check_signature
from services.ledger.usecases.payments import (
    Books,
    Report,
    acting_for,
    ask_channel,
    channel_of,
    find_order,
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
    channel, known = books.run(lambda session: _look(session, cipher, code, claimed_id))
    webhook_id, signed_at = _checked(channel, headers, raw)
    if known is not None:
        return _view(known)
    report = Report(_read(raw, channel, signed_at), "callback", webhook_id)
    digest = sha256(raw).digest()
    with acting_for(channel) as passport:
        take = partial(_take, books, passport, channel, report, digest)
        try:
            return take()
        except _MustAsk:
            with _turns.of((code, report.payment.order_no)):
                return _ask_and_take(books, channel, report, take, allowed)


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


class _MustAsk(Exception):
    """The order would follow, and its platform can be asked, and was not."""


def _ask_and_take(
    books: Books, channel: Channel, report: Report, take: Callable[..., CallbackView], allowed: frozenset[str]
) -> CallbackView:
    known = books.run(lambda session: _known(session, channel.code, str(report.webhook_id)))
    if known is not None:
        return _view(known)
    try:
        return take()  # whose turn was before may have asked already
    except _MustAsk:
        payment = report.payment
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
    return take(answered=answer.payments)


def _take(
    books: Books,
    passport: Passport,
    channel: Channel,
    report: Report,
    digest: bytes,
    *,
    answered: Sequence[Payment] | None = None,
) -> CallbackView:
    """Let the order follow and note the callback, in one transaction.

    answered: the order's payments as the platform has them, which count; None where it was not asked.
    Raises: _MustAsk.
    """
    threshold = books.threshold()

    def work(session: Session) -> Any:
        if answered is None:
            order = find_order(session, channel, report.payment.order_no, is_locked=True)
            follows = outcome_of(order, report.payment) in (Outcome.SETTLED, Outcome.FAILED)
            if follows and channel.is_askable:
                raise _MustAsk
            outcome = take_report(session, passport, channel, report, order, threshold=threshold)
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


def _look(session: Session, cipher: ChannelCipher, code: str, webhook_id: str) -> tuple[Channel | None, Any]:
    """Return an active channel, and what this callback came to before; None for either that there is not."""
    c, k = channels.c, callbacks.c
    is_same = sa.and_(k.channel == c.code, k.webhook_id == webhook_id)
    query = sa.select(channels, k.outcome, k.order_no, k.upstream_ref).outerjoin(callbacks, is_same)
    row = session.execute(query.where(c.code == code, c.status == "active")).first()
    if row is None:
        return None, None
    return channel_of(row, cipher), row if row.outcome is not None else None


def _known(session: Session, code: str, webhook_id: str) -> Any:
    """Return what a callback came to before, or None."""
    query = sa.select(callbacks).where(callbacks.c.channel == code, callbacks.c.webhook_id == webhook_id)
    return session.execute(query).first()


def _note(session: Session, channel: Channel, report: Report, digest: bytes, outcome: Outcome) -> Any:
    """Note what a callback came to.

    Returns: the note; that of another delivery of the same callback, where one was quicker. What this one did is
    nothing then: the order's lock let it see that all was done.
    """
    values = {
        "channel": channel.code,
        "webhook_id": report.webhook_id,
        "body_sha256": digest,
        "order_no": report.payment.order_no,
        "upstream_ref": report.payment.upstream_ref,
        "outcome": outcome.value,
    }
    noting = postgresql.insert(callbacks).values(values).on_conflict_do_nothing().returning(callbacks)
    return session.execute(noting).first() or _known(session, channel.code, str(report.webhook_id))


def _view(row: Any) -> CallbackView:
    return {"outcome": row.outcome, "order_no": row.order_no, "upstream_ref": row.upstream_ref}
