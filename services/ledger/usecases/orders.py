"""What can be done to orders. Each act is one transaction: the order's row locked, its money, its history, its event.

An order is locked first and its account after it, always, so that no two acts wait for each other.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.changes import Change
from services.ledger.domain.channels import fee_of
from services.ledger.domain.orders import (
    Status,
    Verb,
    amount_to_refund,
    check_order,
    check_reason,
    check_upstream_ref,
    fee_change,
    refund_type,
    refunding_change,
    settling_change,
    state_after,
)
from services.ledger.domain.thresholds import Threshold
from services.ledger.models.channels import channels
from services.ledger.models.entries import accounts
from services.ledger.models.orders import order_history, order_user_id, order_view, orders
from services.ledger.queries.orders import count_posted, given_back
from services.ledger.row_digests import content_of, inserting
from services.ledger.usecases.postings import post_within
from shared import outbox
from shared.contracts.ledger import (
    InsufficientBalance,
    OrderCreated,
    OrderFailed,
    OrderNotFound,
    OrderNumberTaken,
    OrderPostedBefore,
    OrderRefunded,
    OrderSettled,
    OrderSettledOtherwise,
    OrderView,
)
from shared.copies import require_merchant
from shared.ids import new_id
from shared.money import format_minor, fraction_digits
from shared.passport import Passport
from shared.times import parse_rfc3339


def create_order(
    session: Session,
    passport: Passport,
    *,
    merchant_id: str,
    kind: str,
    amount: str,
    currency: str,
    order_no: str | None = None,
    user_id: str | None = None,
    channel: str | None = None,
    default_fee_percent: str = "0",
) -> OrderView:
    """Make an order; a purchase, a renewal and a withdrawal hold their amount and fee until they settle or fail.

    order_no: unique over all merchants; None makes one. A taken number is refused alike whoever has it, and so is one
    by which a balance change has moved what the order would.
    user_id: None for an order of the merchant's own account.
    default_fee_percent: the rate where the channel has none; either is fixed with the order.
    Raises, in order: InvalidRequest, InvalidMoney; MerchantNotFound; OrderNumberTaken; InsufficientBalance.
    Emits: OrderCreated.
    Locks: the order's number, then the account that it holds money of.
    """
    new = check_order(
        order_no=new_id("ord") if order_no is None else order_no,
        merchant_id=merchant_id,
        user_id=user_id,
        kind=kind,
        amount=amount,
        currency=currency,
        channel=channel,
    )
    require_merchant(session, passport, merchant_id)
    change = new.change
    fee_percent, fee_source = rate_in_force(session, channel, default_fee_percent)
    fee = fee_of(new.amount, fee_percent)
    held = new.held(fee)
    account_id = _account_id(session, change) if held else None
    values = {
        "order_no": change.order_no,
        "merchant_id": merchant_id,
        "holder_type": change.holder_type,
        "holder_id": change.holder_id,
        "kind": new.kind.value,
        "amount": new.amount,
        "fee": fee,
        "fee_percent": fee_percent,
        "fee_source": fee_source,
        "held": held if account_id is not None else 0,
        "account_id": account_id,
        "currency": currency,
        "fraction_digits": fraction_digits(currency),
        "channel": channel,
    }
    if held and account_id is None:
        _refuse_taken(session, change.order_no)
        raise InsufficientBalance(available="0", currency=currency)
    row = session.execute(
        sa.text(
            f"insert into orders ({', '.join(values)}, created_at)"
            f" values ({', '.join(f':{name}' for name in values)}, clock_timestamp())"
            " on conflict on constraint uq_orders_order_no do nothing returning *"
        ),
        values,
    ).first()
    if row is None:
        raise OrderNumberTaken
    refuse_posted(session, row)
    if account_id is not None:
        hold(session, account_id, held, currency)
    note_act(session, passport, row, act="create", before=None, amount=row.amount)
    told = _content(row) | {"fee": format_minor(row.fee, currency)}
    outbox.add(session, OrderCreated(**told, amount=format_minor(row.amount, currency)))
    return order_view(row)


def settle_order(
    session: Session, passport: Passport, *, order_no: str, upstream_ref: str | None = None, threshold: Threshold
) -> OrderView:
    """Settle a pending order: what it held is free, its money moves, its fee is charged. Doing it again does nothing.

    upstream_ref: the payment platform's own number.
    Raises, in order: InvalidRequest; OrderNotFound; OrderNotPending; OrderSettledOtherwise; InsufficientBalance;
    BalanceTooLarge; OrderPostedBefore.
    Emits: OrderSettled, BalancesChanged, LargeChangeDetected.
    Locks: the order, then its account.
    """
    upstream_ref = check_upstream_ref(upstream_ref)
    order = _lock(session, passport, order_no)
    after = state_after(order.status, Verb.SETTLE)
    if after == order.status:
        if upstream_ref is not None and upstream_ref != order.upstream_ref:
            how = "without a reference" if order.upstream_ref is None else f"with {order.upstream_ref}"
            raise OrderSettledOtherwise(f"The order is settled {how}.", upstream_ref=order.upstream_ref)
        return order_view(order)
    _release(session, order)
    settling = settling_change(**_content(order), amount=order.amount)
    charging = [fee_change(settling, order.fee)] if order.fee else []
    at = _post(session, passport, [settling, *charging], threshold)
    # Under the account's lock, which is held now even where the account came into being just before.
    if count_posted(session, order) > 1:
        raise OrderPostedBefore
    row = _update(session, order, status=after.value, held=0, upstream_ref=upstream_ref, settled_at=at)
    noted: dict[str, Any] = {"amount": row.amount, "upstream_ref": upstream_ref, "created_at": at}
    note_act(session, passport, row, act="settle", before=order.status, **noted)
    told = _content(row) | {"upstream_ref": upstream_ref, "changes": _status_change(order, row)}
    fee = format_minor(row.fee, row.currency)
    outbox.add(session, OrderSettled(**told, amount=format_minor(row.amount, row.currency), fee=fee))
    return order_view(row)


def fail_order(session: Session, passport: Passport, *, order_no: str, reason: str | None = None) -> OrderView:
    """Say that a pending order came to nothing: what it held is free. Failing it again does nothing.

    Raises, in order: InvalidRequest; OrderNotFound; OrderNotPending.
    Emits: OrderFailed.
    Locks: the order, then its account.
    """
    reason = check_reason(reason, is_required=False)
    order = _lock(session, passport, order_no)
    after = state_after(order.status, Verb.FAIL)
    if after == order.status:
        return order_view(order)
    _release(session, order)
    row = _update(session, order, status=after.value, held=0)
    note_act(session, passport, row, act="fail", before=order.status, reason=reason)
    told = _content(row) | {"reason": reason, "changes": _status_change(order, row)}
    outbox.add(session, OrderFailed(**told, amount=format_minor(row.amount, row.currency)))
    return order_view(row)


def refund_order(
    session: Session,
    passport: Passport,
    *,
    order_no: str,
    reason: str,
    amount: str | None = None,
    threshold: Threshold,
) -> OrderView:
    """Give an amount of a settled order back, or all that is left; an order that has nothing left is as it is.

    The fee stays charged.
    amount: a decimal string; None is all that is left. A second refund of a named amount is another refund.
    Raises, in order: InvalidRequest; OrderNotFound; OrderNotRefundable; OrderNotSettled; InvalidMoney;
    RefundTooLarge; BalanceTooLarge.
    Emits: OrderRefunded, BalancesChanged, LargeChangeDetected.
    Locks: the order, then its account.
    """
    said = check_reason(reason, is_required=True) or ""
    order = _lock(session, passport, order_no)
    refund_type(order.kind)
    state_after(order.status, Verb.REFUND)
    if amount is None and order.status == Status.REFUNDED:
        return order_view(order)
    _lock_account(session, order)
    before = given_back(session, order)
    minor = amount_to_refund(paid=order.amount, refunded=before, wanted=amount, currency=order.currency)
    at = _post(session, passport, [refunding_change(**_content(order), amount=minor, reason=said)], threshold)
    refunded = before + minor
    status = Status.REFUNDED if refunded == order.amount else Status.PARTIALLY_REFUNDED
    row = _update(session, order, status=status.value, refunded=refunded)
    note_act(session, passport, row, act="refund", before=order.status, amount=minor, reason=said, created_at=at)
    told = _content(row) | {"reason": said, "changes": _status_change(order, row)}
    this_time, in_all = format_minor(minor, row.currency), format_minor(refunded, row.currency)
    outbox.add(session, OrderRefunded(**told, amount=this_time, refunded=in_all))
    return order_view(row)


_NOW: Final = sa.func.clock_timestamp()


def _lock(session: Session, passport: Passport, order_no: str) -> Any:
    """Return an order, locked. Raises: OrderNotFound, also for one of a merchant that the caller does not see."""
    query = sa.select(orders).where(orders.c.order_no == order_no)
    merchants = passport.merchant_filter()
    if merchants is not None:
        query = query.where(orders.c.merchant_id.in_(merchants))
    row = session.execute(query.with_for_update()).first()
    if row is None:
        raise OrderNotFound
    return row


def _update(session: Session, order: Any, **values: Any) -> Any:
    return session.execute(sa.update(orders).where(orders.c.id == order.id).values(values).returning(orders)).one()


def _refuse_taken(session: Session, order_no: str | None) -> None:
    if session.execute(sa.select(orders.c.id).where(orders.c.order_no == order_no)).first() is not None:
        raise OrderNumberTaken


def _of_holder(holder: Any) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of the account of an order or a change."""
    return [
        accounts.c.merchant_id == holder.merchant_id,
        accounts.c.holder_type == holder.holder_type,
        accounts.c.holder_id == holder.holder_id,
        accounts.c.currency == holder.currency,
        accounts.c.wallet == "balance",
    ]


def _account_id(session: Session, holder: Any) -> int | None:
    return session.scalar(sa.select(accounts.c.id).where(*_of_holder(holder)))


def hold(session: Session, account_id: int, amount: int, currency: str) -> None:
    """Hold an amount of an account. PostgreSQL looks at the balance again when it has the lock, so this is exact.

    Raises: InsufficientBalance.
    """
    free = accounts.c.balance - accounts.c.held
    holding = (
        sa.update(accounts)
        .where(accounts.c.id == account_id, free >= amount)
        .values(held=accounts.c.held + amount, updated_at=_NOW)
        .returning(accounts.c.id)
    )
    if session.execute(holding).first() is None:
        available = session.execute(sa.select(free).where(accounts.c.id == account_id)).scalar_one()
        raise InsufficientBalance(available=format_minor(available, currency), currency=currency)


def _release(session: Session, order: Any) -> None:
    if order.held:
        session.execute(
            sa.update(accounts)
            .where(accounts.c.id == order.account_id)
            .values(held=accounts.c.held - order.held, updated_at=_NOW)
        )


def refuse_posted(session: Session, order: Any) -> None:
    """Refuse a new order whose money a balance change with its number has moved. Raises: OrderNumberTaken."""
    if count_posted(session, order) > 0:
        raise OrderNumberTaken("A balance change with this number has moved what the order would.")


def _lock_account(session: Session, order: Any) -> None:
    """Lock an order's account: whoever posts a change with its number meanwhile looks for it only under that lock."""
    session.execute(sa.select(accounts.c.id).where(*_of_holder(order)).with_for_update())


def rate_in_force(session: Session, channel: str | None, default: str) -> tuple[Decimal, str | None]:
    """Return the rate that is in force for an order, in percent, and where it comes from; None where there is none."""
    own = session.scalar(sa.select(channels.c.config["fee_percent"].astext).where(channels.c.code == channel))
    if own is not None:
        return Decimal(own), "channel"
    percent = Decimal(default)
    return percent, "parameter" if percent else None


def _post(session: Session, passport: Passport, changes: Sequence[Change], threshold: Threshold) -> datetime:
    """Post an order's changes. Returns: the first entry's time, which is the act's too, so that both are of one day."""
    entries = post_within(session, passport, changes, threshold=threshold, is_of_order=True)
    return parse_rfc3339(entries[0]["time"])


def _content(order: Any) -> dict[str, Any]:
    """Return what of an order its changes repeat."""
    return {
        "order_no": order.order_no,
        "merchant_id": order.merchant_id,
        "user_id": order_user_id(order),
        "kind": order.kind,
        "currency": order.currency,
        "channel": order.channel,
    }


def _status_change(before: Any, after: Any) -> dict[str, dict[str, str | None]]:
    return {"status": {"before": before.status, "after": after.status}}


# Each act is chained to the one before it, and says what it made of the order's row.
NOTE: Final = sa.text(
    inserting(
        order_history,
        but=("id",),
        now="created_at",
        digests={
            "order_digest": "of_order.digest",
            "digest": "sha256(coalesce(before.digest, '') || of_order.digest"
            f" || {content_of(order_history, 'new', but=('id',))})",
        },
        beside=f"""
            cross join lateral (
                select sha256({content_of(orders, "o")}) as digest from orders o where o.id = new.order_id
            ) as of_order
            left join lateral (
                select h.digest from order_history h where h.order_id = new.order_id order by h.id desc limit 1
            ) as before on true
        """,
    )
)


def note_act(session: Session, passport: Passport, order: Any, **said: Any) -> None:
    """Add an act to an order's history, as `noted` has it, after the order's row is what the act made of it."""
    session.execute(NOTE, noted(passport, order, **said))


def noted(
    passport: Passport,
    order: Any,
    *,
    act: str,
    before: str | None,
    amount: int | None = None,
    upstream_ref: str | None = None,
    reason: str | None = None,
    created_at: datetime | None = None,
) -> dict[str, Any]:
    """Return what `NOTE` writes of an act. created_at: None is now."""
    return {
        "order_id": order.id,
        "act": act,
        "status_before": before,
        "status_after": order.status,
        "amount": amount,
        "upstream_ref": upstream_ref,
        "reason": reason,
        "actor_id": passport.actor_id,
        "actor_name": passport.actor_name,
        "actor_type": passport.actor_type,
        "request_id": passport.request_id,
        "created_at": created_at,
    }
