"""Reads of BIN ranges; whoever sees some merchants only sees everybody's ranges and theirs."""

from collections.abc import Iterable

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


def find_ranges(session: Session, several: Iterable[str]) -> dict[str, BinRange | None]:
    """Return for each number, or BIN, the range that it is in: the longest registered one that it begins with."""
    prefixes = {digits: _prefixes(digits) for digits in several}
    query = select(BinRange).where(BinRange.bin.in_({prefix for of_one in prefixes.values() for prefix in of_one}))
    registered = {row.bin: row for row in session.scalars(query)}
    return {
        digits: next((registered[prefix] for prefix in of_one if prefix in registered), None)
        for digits, of_one in prefixes.items()
    }


def _prefixes(digits: str) -> list[str]:
    lengths = range(min(BIN_DIGITS_MAX, len(digits)), BIN_DIGITS_MIN - 1, -1)
    return [digits[:length] for length in lengths]


def list_bins_within(session: Session, bin_: str) -> list[str]:
    """Return the longer BINs that begin with this one: the numbers under them are not this one's."""
    return list(session.scalars(select(BinRange.bin).where(BinRange.bin.startswith(bin_), BinRange.bin != bin_)))
