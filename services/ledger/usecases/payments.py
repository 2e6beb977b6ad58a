"""What follows for us from what a platform says of a payment: its record, and the order's next step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from services.ledger.adapters import ask
from services.ledger.adapters.answers import Answer, Channel
from services.ledger.cipher import ChannelCipher
from services.ledger.domain.payments import (
    Outcome,
    Payment,
    differing,
    outcome_beside,
    outcome_of,
    payment_that_leads,
    payment_view,
)
from services.ledger.domain.thresholds import Threshold
from services.ledger.models.callbacks import upstream_answers
from services.ledger.models.channels import channels
from services.ledger.models.orders import orders
from services.ledger.models.statements import upstream_records
from services.ledger.usecases.orders import fail_order, settle_order
from shared import outbox
from shared.contracts.channels import UpstreamReported
from shared.contracts.ledger import BalanceTooLarge, InsufficientBalance, OrderPostedBefore
from shared.masking import MASK
from shared.passport import Passport, service_passport
from shared.rpc.wire import Call, current_call

log = structlog.get_logger(__name__)

_RANK: Final = "array_position(array['pending', 'failed', 'success', 'refunded'], {}.status)"

# What is said of one payment is taken in turn, whichever orders it is said of.
_LOCK_PAYMENT: Final = sa.text(
    "select pg_advisory_xact_lock(hashtextextended('payment ' || :channel || ' ' || :upstream_ref, 0))"
)

# As a statement's row is: over what is known, unless it says nothing new, and never back in time. Whatever a platform
# says by itself, it stays with the order that it paid: only its books, a statement, take it away. Which order
# a callback named counts for nothing where the platform, when asked, names another.
_RECORD: Final = sa.text(
    f"""
    insert into upstream_records as r
           (channel, upstream_ref, order_no, amount, fee, currency, status, occurred_at, source)
    values (:channel, :upstream_ref, :order_no, :amount, coalesce(:fee, 0), :currency, :status, :occurred_at, :source)
        on conflict (channel, upstream_ref) do update
       set order_no = excluded.order_no, amount = excluded.amount, fee = coalesce(:fee, r.fee),
           currency = excluded.currency, status = excluded.status, occurred_at = excluded.occurred_at,
           source = excluded.source, statement_id = null, line = null
     where (r.order_no, r.amount, r.fee, r.currency, r.status, r.occurred_at) is distinct from
           (excluded.order_no, excluded.amount, coalesce(:fee, r.fee), excluded.currency, excluded.status,
            excluded.occurred_at)
       and ((excluded.occurred_at, {_RANK.format("excluded")}) >= (r.occurred_at, {_RANK.format("r")})
            or (r.source = 'callback' and excluded.source = 'query'
                and r.order_no is distinct from excluded.order_no))
       and (r.order_no is not distinct from excluded.order_no
            or not exists (select from orders where order_no = r.order_no and channel = r.channel
                              and upstream_ref = r.upstream_ref and settled_at is not null))
    """
).bindparams(sa.bindparam("fee", type_=sa.BigInteger))


class Books(Protocol):
    """What this needs of a process of the ledger."""

    def run(self, work: Any) -> Any:
        """Do work in a transaction."""

    def threshold(self) -> Threshold:
        """Return the amount from which a change is a large one."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a platform told: the payment, and how we heard of it. The webhook is that of a callback."""

    payment: Payment
    source: str
    webhook_id: str | None = None


def open_channel(session: Session, cipher: ChannelCipher, code: str) -> Channel | None:
    """Return an active channel with its secrets; None where there is none."""
    row = session.execute(sa.select(channels).where(channels.c.code == code, channels.c.status == "active")).first()
    return None if row is None else channel_of(row, cipher)


def channel_of(row: Any, cipher: ChannelCipher) -> Channel:
    """Return a row of channels with its secrets open."""
    return Channel(row.code, row.name, row.kind, row.config, cipher.open(row.secrets, code=row.code))


@contextmanager
def acting_for(channel: Channel) -> Iterator[Passport]:
    """Act in the name of a channel's platform within the running call: history and events name it."""
    call: Call = current_call.get()
    passport = replace(
        service_passport("ledger"),
        actor_id=f"channel:{channel.code}",
        actor_name=channel.name,
        ip=call.passport.ip,
        user_agent=call.passport.user_agent,
        request_id=call.passport.request_id,
    )
    token = current_call.set(replace(call, passport=passport, idempotency_key=None))
    try:
        yield passport
    finally:
        current_call.reset(token)


def find_order(session: Session, channel: Channel, order_no: str, *, is_locked: bool = False) -> Any:
    """Return an order of a channel, or None."""
    query = sa.select(orders).where(orders.c.order_no == order_no, orders.c.channel == channel.code)
    return session.execute(query.with_for_update() if is_locked else query).first()


def ask_channel(
    books: Books,
    channel: Channel,
    *,
    order_no: str,
    upstream_ref: str | None,
    asked_for: str,
    allowed: frozenset[str],
) -> Answer:
    """Ask a channel's platform about an order, and keep the raw answer, whatever comes of it."""
    answer = ask(channel, order_no=order_no, upstream_ref=upstream_ref, allowed=allowed)
    values = {
        "channel": channel.code,
        "order_no": order_no,
        "asked_for": asked_for,
        "status_code": answer.status_code,
        "body": _without_secrets(answer.body, channel),
        "fault": answer.fault,
        "request_id": current_call.get().passport.request_id,
    }
    books.run(lambda session: session.execute(sa.insert(upstream_answers).values(values)))
    if answer.fault is not None:
        log.warning("a platform gives no proper answer", channel=channel.code, fault=answer.fault)
    return answer


def _without_secrets(body: bytes, channel: Channel) -> bytes:
    """Return an answer as it may be kept and shown: a platform may say back what it was told."""
    secrets = [word for value in channel.secrets.values() for word in ([value] if isinstance(value, str) else value)]
    for secret in secrets:
        body = body.replace(secret.encode(), MASK.encode())
    return body


def take_answer(
    session: Session,
    passport: Passport,
    channel: Channel,
    payments: Sequence[Payment],
    *,
    threshold: Threshold,
    webhook_id: str | None = None,
) -> tuple[Outcome, Payment]:
    """Keep all payments of an order that a platform answered, at least one, and let the order follow one of them.

    Returns: what followed, and the one that led. Emits and locks: as `take_report`.
    """
    lead = payment_that_leads(payments)
    assert lead is not None
    order = find_order(session, channel, lead.order_no, is_locked=True)
    outcome = take_report(session, passport, channel, Report(lead, "query", webhook_id), order, threshold=threshold)
    for payment in payments:
        if payment is not lead:
            _keep_record(session, channel, Report(payment, "query"))
    return outcome, lead


def take_report(
    session: Session, passport: Passport, channel: Channel, report: Report, order: Any, *, threshold: Threshold
) -> Outcome:
    """Keep what a platform says of a payment as its record, and let the order follow it where it may.

    order: the channel's order of that number, locked; None where there is none.
    Returns: what followed. Money moves only where the order is pending and amount and currency are its own.
    Emits: UpstreamReported, unless it says what was known; OrderSettled, BalancesChanged, LargeChangeDetected,
    or OrderFailed.
    Locks: the payment's number; the order's account.
    """
    payment = report.payment
    session.execute(_LOCK_PAYMENT, {"channel": channel.code, "upstream_ref": payment.upstream_ref})
    is_news = _keep_record(session, channel, report)
    outcome = outcome_of(order, payment)
    if outcome is Outcome.SETTLED:
        outcome = outcome_beside(_record(session, channel, payment), payment, is_asked=report.source == "query")
    if outcome is Outcome.SETTLED:
        outcome = _settle(session, passport, payment, threshold)
    elif outcome is Outcome.FAILED:
        fail_order(session, passport, order_no=payment.order_no, reason=f"{channel.name}: {payment.upstream_ref}")
    if is_news or outcome in (Outcome.SETTLED, Outcome.FAILED):
        tell_report(session, channel, report, outcome, order)
    return outcome


def tell_report(session: Session, channel: Channel, report: Report, outcome: Outcome, order: Any) -> None:
    """Tell that a platform said something, and what followed."""
    outbox.add(
        session,
        UpstreamReported(
            code=channel.code,
            source=report.source,
            outcome=outcome.value,
            order_no=report.payment.order_no,
            merchant_id=None if order is None else order.merchant_id,
            upstream=payment_view(report.payment),
            differing=[] if order is None else differing(order, report.payment),
            webhook_id=report.webhook_id,
        ),
    )


def _settle(session: Session, passport: Passport, payment: Payment, threshold: Threshold) -> Outcome:
    savepoint = session.begin_nested()
    try:
        settle_order(
            session, passport, order_no=payment.order_no, upstream_ref=payment.upstream_ref, threshold=threshold
        )
    except (InsufficientBalance, BalanceTooLarge):
        savepoint.rollback()
        return Outcome.NOT_COVERED
    except OrderPostedBefore:
        savepoint.rollback()
        return Outcome.CONTRADICTED
    savepoint.commit()
    return Outcome.SETTLED


def _record(session: Session, channel: Channel, payment: Payment) -> Any:
    c = upstream_records.c
    query = sa.select(upstream_records).where(c.channel == channel.code, c.upstream_ref == payment.upstream_ref)
    return session.execute(query).one()


def _keep_record(session: Session, channel: Channel, report: Report) -> bool:
    """Return whether the record says anything new."""
    payment = report.payment
    kept: Any = session.execute(
        _RECORD,
        {
            "channel": channel.code,
            "upstream_ref": payment.upstream_ref,
            "order_no": payment.order_no,
            "amount": payment.amount,
            "fee": payment.fee,
            "currency": payment.currency,
            "status": payment.status,
            "occurred_at": payment.occurred_at,
            "source": report.source,
        },
    )
    return bool(kept.rowcount)
