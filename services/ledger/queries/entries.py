"""Reads of the ledger. Each is cut to the caller's merchants here, in SQL."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.ledger.domain.balance_types import label
from services.ledger.domain.entries import view_of
from services.ledger.domain.filters import LogFilter, whole_hours, whole_quarters
from services.ledger.models.archives import archive_totals, left_before
from services.ledger.models.entries import (
    account_view,
    accounts,
    entries,
    hourly_totals,
    microseconds,
    posting_deltas,
    system_account_totals,
)
from services.ledger.queries.pages import Conditions, in_scope, instant, plan_for_these_values, position
from shared.contracts.ledger import (
    AccountPage,
    AccountView,
    CurrencyTotalView,
    EntryPage,
    SummaryView,
    TrialBalancePage,
    TypeTotalView,
)
from shared.errors import NotFound
from shared.kernel_tables import merchant_copies
from shared.money import format_minor
from shared.paging import InvalidCursor, encode_cursor
from shared.passport import Passport
from shared.times import rfc3339

USER_ACCOUNTS_MAX: Final = 500
_AT_MICROSECONDS = microseconds(entries.c.created_at).label("at_microseconds")
_NEWEST_FIRST = (entries.c.created_at.desc(), entries.c.account_id.desc(), entries.c.version.desc())


def unheard_merchants(session: Session, merchant_ids: Iterable[str]) -> set[str]:
    """Return the merchants that the ledger's copy does not have."""
    named = set(merchant_ids)
    known = sa.select(merchant_copies.c.merchant_id).where(merchant_copies.c.merchant_id.in_(named))
    return named - set(session.scalars(known))


class AccountNotFound(NotFound):
    """This user has no account that you may see."""


def list_balance_logs(
    session: Session,
    passport: Passport,
    wanted: LogFilter,
    *,
    limit: int,
    cursor: str | None,
    card_id: str | None = None,
) -> EntryPage:
    """Return one page of entries, newest first; with `card_id` of that card only. Raises: InvalidCursor."""
    plan_for_these_values(session)
    conditions = _entry_conditions(session, passport, wanted)
    if card_id is not None:
        conditions.append(entries.c.account_id.in_(_account_ids(session, passport, wanted, "card", card_id)))
    query = sa.select(entries, _AT_MICROSECONDS).where(*conditions)
    if cursor:
        at, account_id, version = position(cursor, length=3)
        place = (instant(at), account_id, version)
        query = query.where(sa.tuple_(entries.c.created_at, entries.c.account_id, entries.c.version) < place)
    rows = session.execute(query.order_by(*_NEWEST_FIRST).limit(limit + 1)).all()
    shown = rows[:limit]
    return {
        "items": [view_of(row) for row in shown],
        "next_cursor": encode_cursor(_place(shown[-1])) if len(rows) > limit else None,
        "archived_before": _archived_before(session, wanted),
    }


def _archived_before(session: Session, wanted: LogFilter, *, is_sum: bool = False) -> str | None:
    """Return before which instant entries of the range have left the log; of a sum, if it lacks them."""
    instant = left_before(session)
    if instant is None or instant <= wanted.start:
        return None
    end = min(wanted.end, instant)
    is_whole = is_sum and wanted.is_rolled_up and whole_quarters(wanted.start, end) == (wanted.start, end)
    return None if is_whole else rfc3339(instant)


def day_after(cursor: str, zone_name: str) -> str:
    """Return the day in which a log of today goes on: its last row's, also when midnight has come meanwhile.

    Raises: InvalidCursor.
    """
    at, *_ = position(cursor, length=3)
    try:
        return instant(at).astimezone(ZoneInfo(zone_name)).date().isoformat()
    except OverflowError:
        raise InvalidCursor.of_field("cursor", InvalidCursor.title) from None


def _place(row: Any) -> list[int]:
    return [row.at_microseconds, row.account_id, row.version]


def _entry_conditions(session: Session, passport: Passport, wanted: LogFilter) -> Conditions:
    c = entries.c
    conditions = [c.created_at >= wanted.start, c.created_at < wanted.end]
    conditions += in_scope(passport, c.merchant_id, wanted.merchant_id)
    if wanted.user_id is not None:
        # By number, as the index has them: a user's text in every entry's index costs a batch a tenth of its time.
        conditions.append(c.account_id.in_(_account_ids(session, passport, wanted, "user", wanted.user_id)))
    if wanted.holder_type is not None:
        conditions.append(c.holder_type == wanted.holder_type)
    if wanted.currency is not None:
        conditions.append(c.currency == wanted.currency)
    if wanted.order_no is not None:
        conditions.append(c.order_no == wanted.order_no)
    if wanted.codes is not None:
        conditions.append(c.type.in_(wanted.codes))
    if wanted.min_amount is not None or wanted.max_amount is not None:
        conditions.append(_amount_condition(session, wanted))
    return conditions


def _account_ids(
    session: Session, passport: Passport, wanted: LogFilter, holder_type: str, holder_id: str
) -> list[int]:
    conditions = [accounts.c.holder_id == holder_id, accounts.c.holder_type == holder_type]
    conditions += in_scope(passport, accounts.c.merchant_id, wanted.merchant_id)
    return list(session.scalars(sa.select(accounts.c.id).where(*conditions)))


def _amount_condition(session: Session, wanted: LogFilter) -> sa.ColumnElement[bool]:
    """Return the condition on the absolute value, for each currency in its own minor units."""
    currencies = [wanted.currency] if wanted.currency is not None else _known_currencies(session)
    size = sa.func.abs(entries.c.amount)
    by_currency = []
    for currency in currencies:
        least, greatest = wanted.amount_bounds(currency)
        by_currency.append(
            sa.and_(
                entries.c.currency == currency,
                *([] if least is None else [size >= least]),
                *([] if greatest is None else [size <= greatest]),
            )
        )
    return sa.or_(sa.false(), *by_currency)


def _known_currencies(session: Session) -> list[str]:
    known = sa.union(sa.select(hourly_totals.c.currency).distinct(), sa.select(posting_deltas.c.currency).distinct())
    return list(session.scalars(known))


def summarize_balance_logs(session: Session, passport: Passport, wanted: LogFilter) -> SummaryView:
    """Return the sums of the entries that fit the filter, by type and currency, and by currency.

    Whole hours come from the hourly totals where the filter allows it, in the same statement as the rest; quarters of
    hours at both ends of what has left the log from the archives' totals. What else has left, they say that they lack.
    """
    plan_for_these_values(session)
    hours = whole_hours(wanted.start, wanted.end) if wanted.is_rolled_up else None
    parts = [_summed_entries(_entry_conditions(session, passport, wanted), hours)]
    if hours is not None:
        parts += [_summed(passport, wanted, hourly_totals, hourly_totals.c.hour, [hours])]
        parts += [_summed(passport, wanted, posting_deltas, posting_deltas.c.hour, [hours])]
    if wanted.is_rolled_up:
        first, last = whole_quarters(wanted.start, wanted.end)
        ends = [(first, hours[0]), (hours[1], last)] if hours else [(first, last)]
        parts += [_summed(passport, wanted, archive_totals, archive_totals.c.quarter, ends)]
    some = sa.union_all(*parts).subquery()
    total = [sa.func.sum(some.c[name]).label(name) for name in ("entries", "increase", "decrease")]
    by_type = sa.select(some.c.type, some.c.currency, *total).group_by(some.c.type, some.c.currency)
    rows = session.execute(by_type.order_by(some.c.type, some.c.currency)).all()
    return {
        "items": [_type_total(row) for row in rows],
        "totals": _currency_totals(rows),
        "archived_before": _archived_before(session, wanted, is_sum=True),
    }


def _summed_entries(conditions: Conditions, hours: tuple[datetime, datetime] | None) -> sa.Select[Any]:
    c = entries.c
    if hours is not None:
        conditions = [*conditions, sa.or_(c.created_at < hours[0], c.created_at >= hours[1])]
    return (
        sa.select(
            c.type,
            c.currency,
            sa.func.count().label("entries"),
            sa.func.coalesce(sa.func.sum(c.amount).filter(c.amount > 0), 0).label("increase"),
            sa.func.coalesce(sa.func.sum(c.amount).filter(c.amount < 0), 0).label("decrease"),
        )
        .where(*conditions)
        .group_by(c.type, c.currency)
    )


def _summed(
    passport: Passport,
    wanted: LogFilter,
    table: sa.Table,
    at: sa.Column[datetime],
    ranges: Sequence[tuple[datetime, datetime]],
) -> sa.Select[Any]:
    """Return the sums of a table of sums, of its rows that are in one of the ranges."""
    c = table.c
    in_range = sa.or_(*(sa.and_(at >= first, at < last) for first, last in ranges))
    conditions = [in_range, *in_scope(passport, c.merchant_id, wanted.merchant_id)]
    if wanted.currency is not None:
        conditions.append(c.currency == wanted.currency)
    if wanted.codes is not None:
        conditions.append(c.type.in_(wanted.codes))
    return sa.select(c.type, c.currency, c.entries, c.increase, c.decrease).where(*conditions)


def _type_total(row: Any) -> TypeTotalView:
    name, group = label(row.type)
    return {
        "type": row.type,
        "type_name": name,
        "group": group,
        **_total(row.currency, row.entries, row.increase, row.decrease),
    }


def _total(currency: str, count: Any, increase: Any, decrease: Any) -> CurrencyTotalView:
    return {
        "currency": currency,
        "count": int(count),
        "increase": format_minor(int(increase), currency),
        "decrease": format_minor(int(decrease), currency),
        "net": format_minor(int(increase) + int(decrease), currency),
    }


def _currency_totals(rows: Iterable[Any]) -> list[CurrencyTotalView]:
    sums: dict[str, list[int]] = {}
    for row in rows:
        total = sums.setdefault(row.currency, [0, 0, 0])
        for place, value in enumerate((row.entries, row.increase, row.decrease)):
            total[place] += int(value)
    return [_total(currency, *total) for currency, total in sorted(sums.items())]


def list_accounts(
    session: Session,
    passport: Passport,
    *,
    merchant_id: str | None,
    user_id: str | None,
    holder_type: str | None,
    currency: str | None,
    limit: int,
    cursor: str | None,
) -> AccountPage:
    """Return one page of accounts, the last opened first. Raises: InvalidCursor."""
    plan_for_these_values(session)
    conditions = in_scope(passport, accounts.c.merchant_id, merchant_id)
    if user_id is not None:
        conditions += [accounts.c.holder_id == user_id, accounts.c.holder_type == "user"]
    if holder_type is not None:
        conditions.append(accounts.c.holder_type == holder_type)
    if currency is not None:
        conditions.append(accounts.c.currency == currency)
    if cursor:
        conditions.append(accounts.c.id < position(cursor, length=1)[0])
    rows = _accounts(session, conditions, limit + 1)
    shown = rows[:limit]
    return {
        "items": [account_view(row) for row in shown],
        "next_cursor": encode_cursor([shown[-1].id]) if len(rows) > limit else None,
    }


def list_user_accounts(session: Session, passport: Passport, *, user_id: str) -> list[AccountView]:
    """Return a user's accounts, one a merchant and currency. Raises: AccountNotFound."""
    holder = [accounts.c.holder_id == user_id, accounts.c.holder_type == "user"]
    rows = _accounts(session, [*holder, *in_scope(passport, accounts.c.merchant_id)], USER_ACCOUNTS_MAX)
    if not rows:
        raise AccountNotFound
    return [account_view(row) for row in rows]


def find_card_account(
    session: Session, passport: Passport, *, card_id: str, merchant_id: str, currency: str
) -> AccountView | None:
    """Return a card's account with a merchant; None while nothing was ever put onto it."""
    holder = [accounts.c.holder_id == card_id, accounts.c.holder_type == "card", accounts.c.currency == currency]
    rows = _accounts(session, [*holder, *in_scope(passport, accounts.c.merchant_id, merchant_id)], 1)
    return account_view(rows[0]) if rows else None


def _accounts(session: Session, conditions: Conditions, limit: int) -> Sequence[Any]:
    at = microseconds(accounts.c.updated_at).label("at_microseconds")
    query = sa.select(accounts, at).where(*conditions).order_by(accounts.c.id.desc()).limit(limit)
    return session.execute(query).all()


def read_trial_balance(session: Session, passport: Passport) -> TrialBalancePage:
    """Return, a currency each, the sum of all accounts and each system account, of the merchants that are seen.

    One statement, and so one snapshot: the sum is zero at every instant.
    """
    held = (
        sa.select(
            accounts.c.currency,
            sa.null().cast(sa.Text).label("name"),
            sa.cast(accounts.c.balance, sa.Numeric).label("balance"),
        )
        .where(*in_scope(passport, accounts.c.merchant_id))
        .subquery()
    )
    system = sa.union_all(
        sa.select(
            system_account_totals.c.currency,
            system_account_totals.c.counter_account.label("name"),
            system_account_totals.c.balance,
        ).where(*in_scope(passport, system_account_totals.c.merchant_id)),
        sa.select(
            posting_deltas.c.currency,
            posting_deltas.c.counter_account,
            -(posting_deltas.c.increase + posting_deltas.c.decrease),
        ).where(posting_deltas.c.counter_account.is_not(None), *in_scope(passport, posting_deltas.c.merchant_id)),
    ).subquery()
    both = sa.union_all(
        *(
            sa.select(part.c.currency, part.c.name, sa.func.sum(part.c.balance).label("balance")).group_by(
                part.c.currency, part.c.name
            )
            for part in (held, system)
        )
    )
    holders: dict[str, int] = {}
    names: dict[str, dict[str, int]] = {}
    for currency, name, balance in session.execute(both):
        names.setdefault(currency, {})
        if name is None:
            holders[currency] = int(balance)
        else:
            names[currency][name] = int(balance)
    return {"items": [_trial(c, holders.get(c, 0), names[c]) for c in sorted(names)]}


def _trial(currency: str, holders: int, system: dict[str, int]) -> Any:
    total = sum(system.values())
    return {
        "currency": currency,
        "sum": format_minor(holders + total, currency),
        "holders": format_minor(holders, currency),
        "system": format_minor(total, currency),
        "system_accounts": [
            {"name": name, "balance": format_minor(balance, currency)} for name, balance in sorted(system.items())
        ],
    }
