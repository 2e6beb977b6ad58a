"""Reads of a card's transfers, cut to the caller's merchants."""

from datetime import datetime
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.cards.domain.limits import Usage, usage_of
from services.cards.domain.transfers import Direction, State
from services.cards.models import Card
from services.cards.money.models import Transfer
from services.cards.queries import find_card
from shared.contracts.cards import CardBalanceView, TransferPage
from shared.contracts.ledger import AccountView
from shared.paging import LIMIT_DEFAULT, decode_cursor, encode_cursor
from shared.passport import Passport
from shared.times import day_bounds


def list_card_transfers(
    session: Session, passport: Passport, *, card_id: str, limit: int = LIMIT_DEFAULT, cursor: str | None = None
) -> TransferPage:
    """Return a card's transfers, newest first; those with other callers' merchants are left out.

    Raises: CardNotFound, InvalidCursor.
    """
    find_card(session, passport, card_id)
    query = sa.select(Transfer).where(Transfer.card_id == card_id)
    merchants = passport.merchant_filter()
    if merchants is not None:
        query = query.where(Transfer.merchant_id.in_(merchants))
    if cursor:
        query = query.where(Transfer.id < str(decode_cursor(cursor, length=1)[0]))
    rows = list(session.scalars(query.order_by(Transfer.id.desc()).limit(limit + 1)))
    more = len(rows) > limit
    return {
        "items": [row.view() for row in rows[:limit]],
        "next_cursor": encode_cursor([rows[limit - 1].id]) if more else None,
    }


def balance_view(card: Card, account: AccountView | None, transfers_under_way: int) -> CardBalanceView:
    """Return a card's money, as its account in the ledger has it; a card that never had any has no account."""
    return {
        "card_id": card.id,
        "merchant_id": card.merchant_id,
        "currency": card.currency,
        "balance": "0" if account is None else account["balance"],
        "held": "0" if account is None else account["held"],
        "available": "0" if account is None else account["available"],
        "version": 0 if account is None else account["version"],
        "transfers_under_way": transfers_under_way,
        "updated_at": None if account is None else account["updated_at"],
    }


def count_under_way(session: Session, card_id: str) -> int:
    """Return how many transfers of a card have no outcome yet."""
    query = sa.select(sa.func.count()).where(Transfer.card_id == card_id, Transfer.state == State.REQUESTED.value)
    return session.scalars(query).one()


def read_usage(session: Session, card_id: str, *, now: datetime, zone_name: str, is_needed: bool) -> Usage:
    """Return what counts against a card's limits in the day and the month that it is now in the time zone."""
    if not is_needed:
        return Usage()
    today = now.astimezone(ZoneInfo(zone_name)).date()
    day_begins, _ = day_bounds(today, zone_name)
    month_begins, _ = day_bounds(today.replace(day=1), zone_name)
    counts = sa.or_(
        sa.and_(Transfer.direction == Direction.TOP_UP.value, Transfer.state != State.REFUSED.value),
        sa.and_(Transfer.direction == Direction.WITHDRAWAL.value, Transfer.state == State.POSTED.value),
    )
    rows = session.execute(
        sa.select(Transfer.amount, Transfer.direction, Transfer.created_at)
        .where(Transfer.card_id == card_id, Transfer.created_at >= month_begins, counts)
        .order_by(Transfer.created_at, Transfer.id)
    )
    return usage_of(
        (amount if direction == Direction.TOP_UP else -amount, created_at >= day_begins)
        for amount, direction, created_at in rows
    )
