"""Take a message out of the queue for one attempt, and write down what the attempt came to.

An attempt is two transactions with the call to Telegram between them. `claim_notification` leases the message and
counts the attempt; a `settle_…` ends the lease. Where the answer is lost, or the sender dies in between, nobody can
know whether the group has the message: it is sent again, with a remark that says so (docs/decisions/0007).
All times are the database's own, so that senders on several machines agree. Whoever needs both locks the binding
before the message, and the message before the pace.
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.telegram.domain import FAILURES_MAX, Rate, backoff_seconds, repeated_text
from services.telegram.models import ALL_CHATS, Binding, Notification
from services.telegram.usecases.bindings import change_binding, keep_pace, suppress_waiting
from shared import outbox
from shared.contracts.telegram import NotificationFailed, NotificationSent
from shared.ids import new_id

LEASE_SECONDS = 30
MISCONFIGURED_PAUSE_SECONDS = 30
WAITING = ("queued", "failed")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right, for the length of a lease, to make one attempt at a message."""

    notification_id: str
    lease_token: str
    binding_id: str
    chat_id: int
    text: str


_TAKE_TURN = sa.text(
    """
    select extract(epoch from greatest(paused_until, theoretical_at - make_interval(secs => :tolerance))
                              - clock_timestamp())::float
      from pace where chat_id = :all_chats for update
    """
)

# The chats are few and the messages may be many, so the search goes by chat, each with its first due message.
_FIND_DUE = sa.text(
    """
    select due.id from pace cross join lateral (
        select id, due_at from notifications
         where notifications.chat_id = pace.chat_id and status in ('queued', 'failed')
           and due_at <= clock_timestamp()
         order by due_at, id limit 1 for update skip locked
    ) due
     where pace.chat_id <> :all_chats
       and greatest(pace.paused_until, pace.theoretical_at - make_interval(secs => :tolerance)) <= clock_timestamp()
     order by due.due_at, due.id limit 1
    """
)

_LEASE = sa.text(
    """
    update notifications
       set attempts = attempts + 1, may_be_repeat = may_be_repeat or lease_token is not null, lease_token = :token,
           due_at = clock_timestamp() + make_interval(secs => :lease)
     where id = :id
    returning binding_id, chat_id, text, may_be_repeat,
              (select language from bindings where bindings.id = notifications.binding_id) as language
    """
)

_ADVANCE = sa.text(
    """
    update pace
       set theoretical_at = greatest(theoretical_at, clock_timestamp()) + make_interval(secs => :interval)
     where chat_id = :chat_id
    """
)

_SECONDS_UNTIL_DUE = sa.text(
    """
    select extract(epoch from min(greatest(
               due.due_at, pace.paused_until, pace.theoretical_at - make_interval(secs => :tolerance)
           )) - clock_timestamp())::float
      from pace cross join lateral (
        select due_at from notifications
         where notifications.chat_id = pace.chat_id and status in ('queued', 'failed')
         order by due_at limit 1
      ) due
     where pace.chat_id <> :all_chats
    """
)


def claim_notification(session: Session, *, chat_rate: Rate, all_chats_rate: Rate) -> Claim | float | None:
    """Take the message that is due first and that the pace of its chat, and of all chats, lets go.

    Returns: the claim; or in how many seconds one may be due; or None where nothing waits at all.
    Locks: the pace of all chats, so that senders claim one after the other; then the message.
    """
    chat_tolerance = chat_rate.tolerance_seconds
    seconds_until_due: float | None = session.scalar(
        _SECONDS_UNTIL_DUE, {"tolerance": chat_tolerance, "all_chats": ALL_CHATS}
    )
    if seconds_until_due is None or seconds_until_due > 0:
        return seconds_until_due
    turn = {"tolerance": all_chats_rate.tolerance_seconds, "all_chats": ALL_CHATS}
    seconds_until_turn = session.execute(_TAKE_TURN, turn).scalar_one()
    if seconds_until_turn > 0:
        return float(seconds_until_turn)
    notification_id = session.scalar(_FIND_DUE, {"tolerance": chat_tolerance, "all_chats": ALL_CHATS})
    if notification_id is None:
        return 0.0
    token = new_id("lse")
    lease = {"id": notification_id, "token": token, "lease": LEASE_SECONDS}
    row = session.execute(_LEASE, lease).one()
    session.execute(_ADVANCE, {"chat_id": row.chat_id, "interval": chat_rate.interval_seconds})
    session.execute(_ADVANCE, {"chat_id": ALL_CHATS, "interval": all_chats_rate.interval_seconds})
    text = repeated_text(row.text, row.language or "en") if row.may_be_repeat else row.text
    return Claim(
        notification_id=notification_id,
        lease_token=token,
        binding_id=row.binding_id,
        chat_id=row.chat_id,
        text=text,
    )


def settle_sent(session: Session, claim: Claim, *, message_id: int, chat_title: str) -> None:
    """Write down that Telegram has the message, even if the lease was lost or the message suppressed meanwhile.

    chat_title: names a binding that has no title yet.
    Emits: NotificationSent, once.
    """
    untitled = (Binding.id == claim.binding_id, Binding.title == "")
    session.execute(sa.update(Binding).where(*untitled).values(title=chat_title))
    notification = session.get(Notification, claim.notification_id, with_for_update=True)
    if notification is None or notification.status == "sent":
        return
    notification.status, notification.message_id = "sent", message_id
    notification.sent_at = sa.func.clock_timestamp()
    notification.lease_token = notification.last_error = None
    outbox.add(
        session,
        NotificationSent(
            notification_id=notification.id,
            binding_id=notification.binding_id,
            merchant_id=notification.merchant_id,
            notification_type=notification.type,
            message_id=message_id,
            attempts=notification.attempts,
        ),
    )


def settle_rate_limited(session: Session, claim: Claim, *, error: str, retry_after_seconds: int) -> None:
    """Leave the chat alone for as long as Telegram asks; the message loses nothing by it."""
    _settle(session, claim, {"due_at": _after(retry_after_seconds), "last_error": error})
    _pause(session, claim.chat_id, retry_after_seconds)


def settle_misconfigured(session: Session, claim: Claim, *, error: str) -> None:
    """Leave all chats alone for a while: it is not this message that is wrong."""
    _settle(session, claim, {"due_at": _after(MISCONFIGURED_PAUSE_SECONDS), "last_error": error})
    _pause(session, ALL_CHATS, MISCONFIGURED_PAUSE_SECONDS)


def settle_failed(session: Session, claim: Claim, *, error: str, is_outcome_unknown: bool) -> None:
    """Write down a failure that may pass: the message is tried again later, or given up after the last time.

    is_outcome_unknown: the group may have the message, so the next attempt says that it may be a repeat.
    Emits: NotificationFailed, when it is given up.
    """
    notification = _claimed(session, claim)
    if notification is None:
        return
    notification.failures += 1
    notification.may_be_repeat = notification.may_be_repeat or is_outcome_unknown
    if notification.failures >= FAILURES_MAX:
        _give_up(session, notification, error)
        return
    changes = {"status": "failed", "due_at": _after(backoff_seconds(notification.failures)), "last_error": error}
    _settle(session, claim, changes)


def settle_refused(session: Session, claim: Claim, *, error: str) -> None:
    """Give up a message that Telegram will never take. Emits: NotificationFailed."""
    notification = _claimed(session, claim)
    if notification is not None:
        _give_up(session, notification, error)


def settle_unreachable(session: Session, claim: Claim, *, error: str, reason: str) -> None:
    """Disable the binding of a group that the bot cannot write to; what waits for it is suppressed.

    reason: the binding's new `status_reason`.
    Emits: NotificationFailed, BindingUpdated.   Locks: binding, message.
    """
    binding = _locked_binding(session, claim)
    notification = _claimed(session, claim)
    if notification is not None:
        _give_up(session, notification, error)
        _disable(session, binding, reason)


def settle_migrated(session: Session, claim: Claim, *, error: str, migrate_to_chat_id: int) -> None:
    """Follow a group that became a supergroup: its binding and all that waits go to the new chat, at once.

    Where that chat is bound already, this binding is disabled instead.
    Emits: BindingUpdated.   Locks: binding, message.
    """
    binding = _locked_binding(session, claim)
    notification = _claimed(session, claim)
    if notification is None:
        return
    taken_by = session.scalar(sa.select(Binding.id).where(Binding.chat_id == migrate_to_chat_id))
    if taken_by not in (None, claim.binding_id):
        _give_up(session, notification, error)
        _disable(session, binding, "migrated_to_bound_chat")
        return
    keep_pace(session, migrate_to_chat_id)
    if binding is not None:
        change_binding(session, binding, {"chat_id": migrate_to_chat_id})
    of_binding = (Notification.binding_id == claim.binding_id, Notification.status.in_(WAITING))
    session.execute(sa.update(Notification).where(*of_binding).values(chat_id=migrate_to_chat_id))
    _settle(session, claim, {"due_at": _after(0), "last_error": error})


def _claimed(session: Session, claim: Claim) -> Notification | None:
    is_it = (Notification.id == claim.notification_id, Notification.lease_token == claim.lease_token)
    return session.scalar(sa.select(Notification).where(*is_it).with_for_update())


def _settle(session: Session, claim: Claim, changes: dict[str, Any]) -> None:
    session.flush()
    is_it = (Notification.id == claim.notification_id, Notification.lease_token == claim.lease_token)
    still_waits = Notification.status.in_(WAITING)
    session.execute(sa.update(Notification).where(*is_it, still_waits).values(changes))
    session.execute(sa.update(Notification).where(*is_it).values(lease_token=None))


def _give_up(session: Session, notification: Notification, error: str) -> None:
    notification.status, notification.last_error, notification.lease_token = "dead", error, None
    outbox.add(
        session,
        NotificationFailed(
            notification_id=notification.id,
            binding_id=notification.binding_id,
            merchant_id=notification.merchant_id,
            notification_type=notification.type,
            error=error,
            attempts=notification.attempts,
        ),
    )
    session.flush()


def _locked_binding(session: Session, claim: Claim) -> Binding | None:
    return session.get(Binding, claim.binding_id, with_for_update=True)


def _disable(session: Session, binding: Binding | None, reason: str) -> None:
    if binding is not None:
        change_binding(session, binding, {"status": "disabled", "status_reason": reason})
        suppress_waiting(session, binding.id, because=f"The binding was disabled: {reason}.")


def _pause(session: Session, chat_id: int, seconds: int) -> None:
    session.execute(
        sa.text(
            "update pace set paused_until = greatest(paused_until, clock_timestamp() + make_interval(secs => :s))"
            " where chat_id = :chat_id"
        ),
        {"s": seconds, "chat_id": chat_id},
    )


def _after(seconds: float) -> sa.ColumnElement[Any]:
    return sa.func.clock_timestamp() + sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)
