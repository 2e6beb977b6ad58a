"""Callbacks: what a payment platform tells by itself. Nothing in one is believed before its signature was checked.

Where the platform can be asked, it is asked before an order follows: outside every transaction, one at a time for an
order, so that a crowd of callbacks asks once; and a platform that is slow keeps no more than some of us waiting.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from threading import BoundedSemaphore, Lock
from typing import Any, Final, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from services.ledger.adapters.answers import Channel
from services.ledger.adapters.stripe import read_event
from services.ledger.cipher import ChannelCipher
from services.ledger.domain.payments import Outcome, Payment, outcome_of, read_payment
from services.ledger.models.callbacks import callbacks
from services.ledger.signatures import (
    ID_HEADER,
    STRIPE_HEADER,
    TIMESTAMP_HEADER,
    BadSignature,
    check_signature,
    check_stripe_signature,
)
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
from shared.contracts.channels import (
    CALLBACK_BYTES_MAX,
    CallbackRefused,
    CallbackTooLarge,
    CallbackView,
    ChannelUnreachable,
)
from shared.errors import InvalidRequest
from shared.outbound import ANSWER_SECONDS_MAX
from shared.passport import Passport
from shared.rpc.wire import current_call

RETRY_AFTER_SECONDS: Final = 30
ASKING_MAX: Final = 16  # of the calls that a process takes at once
ASKING_WAIT_SECONDS_MAX: Final = 2.0
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
_asking = BoundedSemaphore(ASKING_MAX)


class _Message(NamedTuple):
    """What a callback says, and under which id. `payment` is None where it is about no order's."""

    webhook_id: str
    payment: Payment | None


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

    headers: those of Standard Webhooks, or Stripe's, by names in lower case.
    body: as it came, byte for byte, which is what is signed.
    Raises, in order: CallbackTooLarge; CallbackRefused, alike for an unknown channel, a disabled one and a bad
    signature; InvalidRequest; ChannelUnreachable, and then the platform is to deliver again.
    Emits: UpstreamReported; and what the order's own act emits.
    Idempotent: on the webhook's id, which is noted in the transaction of the effect. Another body is another message.
    """
    raw = body.encode()
    if len(raw) > CALLBACK_BYTES_MAX:
        raise CallbackTooLarge
    channel = _checked(books.run(lambda session: open_channel(session, cipher, code)), headers, raw)
    message = _read(raw, channel, headers)
    if message.payment is None:
        return {"outcome": Outcome.IGNORED.value, "order_no": None, "upstream_ref": None}
    report = Report(message.payment, "callback", message.webhook_id)
    digest = sha256(raw).digest()
    known = books.run(lambda session: _known(session, code, message.webhook_id, digest))
    if known is not None:
        return _view(known)
    with acting_for(channel) as passport:
        take = partial(_take, books, passport, channel, report, digest)
        try:
            return take()
        except _MustAsk:
            with _turn((code, report.payment.order_no)):
                return _ask_and_take(books, channel, report, digest, take, allowed)


def _checked(channel: Channel | None, headers: Mapping[str, str], body: bytes) -> Channel:
    """Return the channel that signed this. Raises: CallbackRefused."""
    secrets = channel.callback_secrets if channel is not None else []
    try:
        if channel is not None and secrets and _is_stripes(channel, headers):
            check_stripe_signature(secrets, headers[STRIPE_HEADER], body)
        else:
            check_signature(secrets or [_NOBODYS_SECRET], headers, body)
    except BadSignature:
        raise CallbackRefused from None
    if channel is None or not secrets:
        raise CallbackRefused
    return channel


def _is_stripes(channel: Channel, headers: Mapping[str, str]) -> bool:
    return channel.kind == "stripe" and bool(headers.get(STRIPE_HEADER))


def _read(body: bytes, channel: Channel, headers: Mapping[str, str]) -> _Message:
    """Return what a callback says whose signature was checked. Raises: InvalidRequest."""
    if _is_stripes(channel, headers):
        return _Message(*read_event(body))
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidRequest("The body is not JSON.") from None
    signed_at = datetime.fromtimestamp(int(headers[TIMESTAMP_HEADER]), UTC)
    payment = read_payment(content, statuses=channel.statuses, default_time=signed_at)
    return _Message(headers[ID_HEADER], payment)


class _MustAsk(Exception):
    """The order would follow, and its platform can be asked, and was not."""


@contextmanager
def _turn(order: tuple[str, str]) -> Iterator[None]:
    """Wait for an order's turn to ask its platform. Raises: ChannelUnreachable where too many wait already."""
    if not _asking.acquire(timeout=ASKING_WAIT_SECONDS_MAX):
        raise ChannelUnreachable(retry_after_seconds=RETRY_AFTER_SECONDS)
    try:
        with _turns.of(order):
            yield
    finally:
        _asking.release()


def _ask_and_take(
    books: Books,
    channel: Channel,
    report: Report,
    digest: bytes,
    take: Callable[..., CallbackView],
    allowed: frozenset[str],
) -> CallbackView:
    known = books.run(lambda session: _known(session, channel.code, str(report.webhook_id), digest))
    if known is not None:
        return _view(known)
    try:
        return take()  # whose turn was before may have asked already
    except _MustAsk:
        payment = report.payment
    if current_call.get().seconds_left < ANSWER_SECONDS_MAX:  # nobody would hear what it comes to
        raise ChannelUnreachable(retry_after_seconds=RETRY_AFTER_SECONDS)
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

    def work(session: Session) -> CallbackView:
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

    view: CallbackView = books.run(work)
    return view


def _known(session: Session, code: str, webhook_id: str, digest: bytes) -> Any:
    """Return what a callback came to before, or None."""
    c = callbacks.c
    is_same = (c.channel == code, c.webhook_id == webhook_id, c.body_sha256 == digest)
    return session.execute(sa.select(callbacks).where(*is_same)).first()


def _note(session: Session, channel: Channel, report: Report, digest: bytes, outcome: Outcome) -> CallbackView:
    """Note what a callback came to.

    Returns: what it came to; in another delivery of it, where one was quicker. What this one did is nothing then: the
    order's lock let it see that all was done.
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
    row = session.execute(noting).first() or _known(session, channel.code, str(report.webhook_id), digest)
    payment = report.payment
    if row is None:  # the id was another message's before
        return {"outcome": outcome.value, "order_no": payment.order_no, "upstream_ref": payment.upstream_ref}
    return _view(row)


def _view(row: Any) -> CallbackView:
    return {"outcome": row.outcome, "order_no": row.order_no, "upstream_ref": row.upstream_ref}
