"""Explanations: why a balance, why a refusal, how a fee. They only read, cut to the caller's merchants in SQL."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.balance_types import label
from services.ledger.domain.changes import ADMIN_PERMISSION, Change, check_change
from services.ledger.domain.entries import Account, Maker, enter, view_of
from services.ledger.domain.explanations import MET, RULES, exact_fee, rule_of
from services.ledger.domain.orders import FEE_TYPE, Status, refuse_past_order
from services.ledger.models.archives import archived_openings, archives
from services.ledger.models.entries import accounts, entries, microseconds
from services.ledger.models.mismatches import correction_entries
from services.ledger.models.orders import order_history, orders
from services.ledger.queries.entries import AccountNotFound
from services.ledger.queries.pages import in_scope
from services.ledger.verification import CONTENT
from shared.contracts.explanations import (
    BalanceExplanation,
    BalanceProofView,
    ChangeExplanation,
    CheckedRuleView,
    ExplainedTotalView,
    FeeExplanation,
    HoldView,
    RefusalExplanation,
    RefusalNotFound,
)
from shared.contracts.ledger import OrderNotFound
from shared.copies import require_merchant
from shared.errors import InvalidRequest, ServiceError
from shared.kernel_tables import idempotency_keys
from shared.money import format_minor, fraction_digits
from shared.passport import Passport
from shared.times import rfc3339, utc_now

HOLDS_SHOWN_MAX: Final = 200
FEE_ENTRIES_MAX: Final = 20
OPERATE_PERMISSION: Final = "ledger:operate"


@dataclass(frozen=True, slots=True)
class _Point:
    """Where an account's entries begin or end: after the entry of this version."""

    version: int = 0
    balance: int = 0
    digest: bytes = b""
    is_archived: bool = False


# What `verification` proves of all accounts, of some entries of one.
_PROOF: Final = sa.text(
    f"""
    with linked as (
        select e.version, e.amount, e.balance_before, e.balance_after, e.digest, {CONTENT} as content,
               coalesce(lag(e.version) over chain, cast(:from_version as bigint)) as previous_version,
               coalesce(lag(e.balance_after) over chain, cast(:from_balance as bigint)) as previous_balance,
               coalesce(lag(e.digest) over chain, cast(:from_digest as bytea)) as previous_digest
          from entries e
         where e.account_id = :account_id and e.version > :from_version and e.version <= :to_version
        window chain as (order by e.version)
    )
    select count(*) as entries,
           count(*) filter (where version <> previous_version + 1) as gaps,
           count(*) filter (where balance_before <> previous_balance or balance_after <> balance_before + amount)
               as broken,
           count(*) filter (where digest <> sha256(previous_digest || content)) as changed,
           coalesce(sum(amount), 0) as amount
      from linked
    """
)


def explain_balance(
    session: Session,
    passport: Passport,
    *,
    user_id: str | None,
    card_id: str | None,
    merchant_id: str | None,
    currency: str,
    from_time: datetime | None,
    at: datetime | None,
) -> BalanceExplanation:
    """Explain an account's balance by its entries, and prove them.

    user_id, card_id: whose account; neither is the merchant's own.
    from_time: where to begin; None is the account's first entry that is still in the log.
    at: where to end; None is now.
    Raises, in order: InvalidRequest; AccountNotFound; InvalidRequest for an `at` whose entries left for an archive.
    """
    if from_time is not None and at is not None and from_time > at:
        raise InvalidRequest.of_field("from", "Must not be later than at.")
    account = _account(session, passport, user_id, card_id, merchant_id, currency)
    opening = _opening(session, account, from_time)
    _refuse_archived(session, account, at)
    closing = _before(session, account, at) or _Point()
    if closing.version < opening.version:
        closing = opening
    proof = _proof(session, account, opening, closing)
    is_now = at is None
    return {
        "merchant_id": account.merchant_id,
        "user_id": account.holder_id if account.holder_type == "user" else None,
        "holder_type": account.holder_type,
        "holder_id": account.holder_id,
        "currency": currency,
        "from_time": None if from_time is None else rfc3339(from_time),
        "at": rfc3339(at or utc_now()),
        "opening": {"balance": format_minor(opening.balance, currency), "version": opening.version},
        "opening_is_archived": opening.is_archived,
        "changes": _changes(session, account, opening, closing),
        "closing": {"balance": format_minor(closing.balance, currency), "version": closing.version},
        "held": format_minor(account.held, currency) if is_now else None,
        "available": format_minor(account.balance - account.held, currency) if is_now else None,
        "holds": _holds(session, account.id, currency) if is_now else None,
        "proof": proof,
    }


def _account(
    session: Session,
    passport: Passport,
    user_id: str | None,
    card_id: str | None,
    merchant_id: str | None,
    currency: str,
) -> Any:
    """Return the one account that is meant. Raises: InvalidRequest, AccountNotFound."""
    if user_id is not None and card_id is not None:
        raise InvalidRequest.of_field("card_id", "Name a user or a card.")
    holder_id = user_id or card_id or merchant_id
    if holder_id is None:
        raise InvalidRequest.of_field("merchant_id", "Name a user, a card or a merchant.")
    holder_type = "user" if user_id is not None else "card" if card_id is not None else "merchant"
    c = accounts.c
    conditions = [c.holder_id == holder_id, c.holder_type == holder_type, c.currency == currency]
    conditions += [c.wallet == "balance", *in_scope(passport, c.merchant_id, merchant_id)]
    rows = session.execute(sa.select(accounts).where(*conditions).limit(2)).all()
    if not rows:
        raise AccountNotFound
    if len(rows) > 1:
        raise InvalidRequest.of_field("merchant_id", "This user has accounts with several merchants: name one.")
    return rows[0]


def _opening(session: Session, account: Any, from_time: datetime | None) -> _Point:
    before = None if from_time is None else _before(session, account, from_time)
    if before is not None:
        return before
    c = archived_openings.c
    query = sa.select(c.version, c.balance, c.digest).where(c.account_id == account.id)
    row = session.execute(query).first()
    return _Point() if row is None else _Point(row.version, row.balance, bytes(row.digest), is_archived=True)


def _refuse_archived(session: Session, account: Any, at: datetime | None) -> None:
    """Refuse an instant at which nobody knows the balance but an archive. Raises: InvalidRequest."""
    if at is None:
        return
    ends_at = sa.func.max(archives.c.month) + sa.text("interval '1 month'")
    of_account = archived_openings.c.account_id == account.id
    query = sa.select(sa.func.timezone("UTC", ends_at)).where(sa.exists().where(of_account))
    log_begins_at = session.execute(query).scalar_one()
    if log_begins_at is not None and at < log_begins_at:
        told = f"The log begins at {rfc3339(log_begins_at)}; what was before is in GET /archived-entries."
        raise InvalidRequest.of_field("at", told)


def _before(session: Session, account: Any, instant: datetime | None) -> _Point | None:
    """Return where an account stood at an instant, by its last entry in the log before that."""
    table = sa.table("entries", *(sa.column(name) for name in ("account_id", "version", "balance_after", "digest")))
    c = table.c
    query = sa.select(c.version, c.balance_after, c.digest).where(c.account_id == account.id)
    if instant is not None:
        query = query.where(sa.column("created_at") < instant)
    row = session.execute(query.order_by(c.version.desc()).limit(1)).first()
    return None if row is None else _Point(row.version, row.balance_after, bytes(row.digest))


def _changes(session: Session, account: Any, opening: _Point, closing: _Point) -> list[ExplainedTotalView]:
    c = entries.c
    amount = c.amount
    query = (
        sa.select(
            c.type,
            sa.func.count().label("count"),
            sa.func.coalesce(sa.func.sum(amount).filter(amount > 0), 0).label("increase"),
            sa.func.coalesce(sa.func.sum(amount).filter(amount < 0), 0).label("decrease"),
        )
        .where(c.account_id == account.id, c.version > opening.version, c.version <= closing.version)
        .group_by(c.type)
        .order_by(c.type)
    )
    return [_total(row, account.currency) for row in session.execute(query)]


def _total(row: Any, currency: str) -> ExplainedTotalView:
    name, group = label(row.type)
    increase, decrease = int(row.increase), int(row.decrease)
    return {
        "type": row.type,
        "type_name": name,
        "group": group,
        "count": row.count,
        "increase": format_minor(increase, currency),
        "decrease": format_minor(decrease, currency),
        "net": format_minor(increase + decrease, currency),
    }


def _proof(session: Session, account: Any, opening: _Point, closing: _Point) -> BalanceProofView:
    parameters = {
        "account_id": account.id,
        "from_version": opening.version,
        "from_balance": opening.balance,
        "from_digest": opening.digest,
        "to_version": closing.version,
    }
    row = session.execute(_PROOF, parameters).one()
    lacking = closing.version - opening.version - row.entries
    sum_is_right = opening.balance + int(row.amount) == closing.balance
    ok = sum_is_right and not (row.gaps or row.broken or row.changed or lacking)
    return {
        "ok": ok,
        "entries": row.entries,
        "gaps": row.gaps,
        "broken": row.broken,
        "changed": row.changed,
        "sum_is_right": sum_is_right,
        "text": f"{'proved' if ok else 'not proved'}: {row.entries} rows, {row.gaps} gaps",
    }


def _holds(session: Session, account_id: int, currency: str) -> list[HoldView]:
    c = orders.c
    query = sa.select(c.order_no, c.kind, c.held).where(c.account_id == account_id, c.held > 0)
    rows = session.execute(query.order_by(c.held.desc(), c.id).limit(HOLDS_SHOWN_MAX))
    return [{"order_no": row.order_no, "kind": row.kind, "held": format_minor(row.held, currency)} for row in rows]


def explain_change(session: Session, passport: Passport, *, change: dict[str, Any]) -> ChangeExplanation:
    """Say whether a change would be posted, and if not, by which rule. Nothing is written.

    Raises: MerchantNotFound, since of another's merchant nothing is explained.
    """
    view: ChangeExplanation = {
        "is_allowed": True,
        "rule": None,
        "refusal": None,
        "rules": [],
        "may_post": passport.may(OPERATE_PERMISSION),
        "currency": None,
        "balance": None,
        "held": None,
        "available": None,
        "balance_after": None,
        "short_by": None,
        "holds": [],
    }
    try:
        checked = check_change(change, is_admin=passport.may(ADMIN_PERMISSION))
    except ServiceError as refusal:
        return _refused(view, refusal)
    require_merchant(session, passport, checked.merchant_id)
    view["currency"] = checked.currency
    account = _state(session, checked, view)
    try:
        _refuse_past_order(session, checked)
        maker = Maker(passport.actor_id, passport.actor_name, passport.actor_type, passport.request_id)
        after = enter(account, checked, maker, at_microseconds=0).balance_after
    except ServiceError as refusal:
        if rule_of(refusal) == "balance":
            view["short_by"] = format_minor(max(account.held - account.balance - checked.amount, 0), checked.currency)
        return _refused(view, refusal)
    view["balance_after"] = format_minor(after, checked.currency)
    view["rules"] = [_met(rule) for rule in RULES if rule in MET]
    return view


def _met(rule: str) -> CheckedRuleView:
    return {"rule": rule, "ok": True, "detail": MET[rule]}


def _refused(view: ChangeExplanation, refusal: ServiceError) -> ChangeExplanation:
    rule = rule_of(refusal)
    met = [_met(known) for known in RULES[: RULES.index(rule)] if known in MET]
    view["is_allowed"], view["rule"], view["refusal"] = False, rule, refusal.view()
    view["rules"] = [*met, {"rule": rule, "ok": False, "detail": refusal.detail}]
    return view


def _state(session: Session, change: Change, view: ChangeExplanation) -> Account:
    """Return the account of a change as it is, and write it into the view."""
    c = accounts.c
    conditions = [c.merchant_id == change.merchant_id, c.holder_type == change.holder_type]
    conditions += [c.holder_id == change.holder_id, c.currency == change.currency, c.wallet == "balance"]
    row = session.execute(sa.select(accounts).where(*conditions)).first()
    account = Account(0, change.merchant_id, change.holder_type, change.holder_id, change.currency)
    if row is not None:
        account.balance, account.held = row.balance, row.held
        view["holds"] = _holds(session, row.id, change.currency) if row.held else []
    view["balance"] = format_minor(account.balance, change.currency)
    view["held"] = format_minor(account.held, change.currency)
    view["available"] = format_minor(account.balance - account.held, change.currency)
    return account


def _refuse_past_order(session: Session, change: Change) -> None:
    """Refuse what posting refuses: to settle or refund an order past its own acts.

    Raises: RefundedThroughOrder, SettledThroughOrder.
    """
    c = orders.c
    kind = session.scalar(sa.select(c.kind).where(c.order_no == change.order_no, c.merchant_id == change.merchant_id))
    if kind is not None:
        refuse_past_order(code=change.type.code, kind=kind)


def explain_refusal(session: Session, passport: Passport, *, request_id: str) -> RefusalExplanation:
    """Explain why a request was refused, by the refusal that is kept under its idempotency key.

    Whoever sees all merchants sees anybody's; all others their own.
    Raises: RefusalNotFound.
    """
    c = idempotency_keys.c
    # As the index has it.
    bearing = sa.text("(error::jsonb -> 'extra' ->> 'request_id') = :request_id").bindparams(request_id=request_id)
    query = sa.select(c.error, c.created_at).where(c.error.is_not(None), bearing)
    if passport.merchants is not None:
        query = query.where(c.caller == passport.actor_id)
    row = session.execute(query.order_by(c.created_at.desc()).limit(1)).first()
    if row is None:
        raise RefusalNotFound
    refusal = ServiceError.from_wire(orjson.loads(row.error))
    return {
        "request_id": request_id,
        "refused_at": rfc3339(row.created_at),
        "rule": rule_of(refusal),
        "refusal": refusal.view(),
        "facts": {name: str(value) for name, value in refusal.extra.items() if name != "request_id"},
    }


def explain_fee(session: Session, passport: Passport, *, order_no: str) -> FeeExplanation:
    """Explain the fee of an order: its rate, where that came from, how it was rounded, what charged it.

    Raises: OrderNotFound.
    """
    conditions = [orders.c.order_no == order_no, *in_scope(passport, orders.c.merchant_id)]
    order = session.execute(sa.select(orders).where(*conditions)).first()
    if order is None:
        raise OrderNotFound
    k = correction_entries.c
    corrected = sa.select(k.account_id, k.version).where(k.order_no == order_no, k.bucket == "fees")
    query = (
        sa.select(entries, microseconds(entries.c.created_at).label("at_microseconds"))
        .where(
            entries.c.order_no == order_no,
            entries.c.merchant_id == order.merchant_id,
            sa.or_(entries.c.type == FEE_TYPE, sa.tuple_(entries.c.account_id, entries.c.version).in_(corrected)),
        )
        .order_by(entries.c.created_at, entries.c.version)
        .limit(FEE_ENTRIES_MAX)
    )
    charged = session.execute(query).all()
    currency, made = order.currency, _amount_made(session, order)
    is_charged = order.status not in (Status.PENDING, Status.FAILED)  # whatever corrections and reversals were between
    return {
        "order_no": order_no,
        "merchant_id": order.merchant_id,
        "channel": order.channel,
        "amount": format_minor(made, currency),
        "currency": currency,
        "fee_percent": f"{order.fee_percent.normalize():f}",
        "fee_source": order.fee_source,
        "exact": exact_fee(made, order.fee_percent, currency),
        "rounding": f"half up, to {fraction_digits(currency)} digits",
        "fee": format_minor(order.fee, currency),
        "charged": format_minor(order.fee if is_charged else 0, currency),
        "entries": [view_of(row) for row in charged],
    }


def _amount_made(session: Session, order: Any) -> int:
    """Return the amount that an order was made with, of which its fee is: it may have been corrected since."""
    c = order_history.c
    query = sa.select(c.amount).where(c.order_id == order.id, c.act == "create")
    made = session.scalar(query)
    return int(order.amount if made is None else made)
