"""Reads of BIN ranges; whoever sees some merchants only sees everybody's ranges and theirs."""

from sqlalchemy import ColumnElement, or_, select, true
from sqlalchemy.orm import Session

from services.cards.bins.models import BinRange
from services.cards.domain.numbers import BIN_DIGITS_MAX, BIN_DIGITS_MIN
from services.cards.queries import position_of
from shared.contracts.bins import BinNotFound, BinPage
from shared.paging import LIMIT_DEFAULT, encode_cursor
from shared.passport import Passport


def visible(passport: Passport) -> ColumnElement[bool]:
    """Return the condition that leaves the ranges that the caller may see."""
    merchants = passport.merchant_filter()
    return true() if merchants is None else or_(BinRange.merchant_id.is_(None), BinRange.merchant_id.in_(merchants))


def list_bins(
    session: Session,
    passport: Passport,
    *,
    status: str | None = None,
    brand: str | None = None,
    merchant_id: str | None = None,
    limit: int = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> BinPage:
    """Return the ranges that fit all filters, the latest first. Raises: InvalidCursor."""
    query = select(BinRange).where(visible(passport))
    for name, value in (("status", status), ("brand", brand), ("merchant_id", merchant_id)):
        if value is not None:
            query = query.where(getattr(BinRange, name) == value)
    if cursor:
        query = query.where(BinRange.id < position_of(cursor, int))
    rows = list(session.scalars(query.order_by(BinRange.id.desc()).limit(limit + 1)))
    more = len(rows) > limit
    return {
        "items": [row.view() for row in rows[:limit]],
        "next_cursor": encode_cursor([rows[limit - 1].id]) if more else None,
    }


def lock_bin(session: Session, passport: Passport, bin_: str) -> BinRange:
    """Return a range that the caller may see, locked until the transaction ends. Raises: BinNotFound."""
    row = session.scalar(select(BinRange).where(BinRange.bin == bin_, visible(passport)).with_for_update())
    if row is None:
        raise BinNotFound
    return row


def find_range_of(session: Session, digits: str) -> BinRange | None:
    """Return the range that a number, or a BIN, is in: the longest that it begins with."""
    prefixes = [digits[:n] for n in range(BIN_DIGITS_MIN, BIN_DIGITS_MAX + 1) if len(digits) >= n]
    longest_first = BinRange.bin.desc()  # they begin alike, so the longest is the last in order
    return session.scalar(select(BinRange).where(BinRange.bin.in_(prefixes)).order_by(longest_first).limit(1))


def list_bins_within(session: Session, bin_: str) -> list[str]:
    """Return the longer BINs that begin with this one: the numbers under them are not this one's."""
    return list(session.scalars(select(BinRange.bin).where(BinRange.bin.startswith(bin_), BinRange.bin != bin_)))
