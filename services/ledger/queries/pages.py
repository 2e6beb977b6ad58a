"""What every list of the ledger needs: the caller's merchants in SQL, the place in a list, a plan for these values."""

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.paging import InvalidCursor, decode_cursor
from shared.passport import Passport

Conditions = list[sa.ColumnElement[bool]]


def position(cursor: str, *, length: int) -> list[int]:
    """Return the numbers that a cursor holds. Raises: InvalidCursor."""
    numbers = decode_cursor(cursor, length=length)
    if any(type(value) is not int or not 0 <= value < 2**63 for value in numbers):
        raise InvalidCursor.of_field("cursor", InvalidCursor.title)
    return numbers


def instant(at_microseconds: int) -> datetime:
    """Return the time that a cursor means. Raises: InvalidCursor."""
    try:
        seconds, rest = divmod(at_microseconds, 1_000_000)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
    except (OverflowError, ValueError, OSError):
        raise InvalidCursor.of_field("cursor", InvalidCursor.title) from None


def plan_for_these_values(session: Session) -> None:
    """Have this transaction's statements planned for the values that they get."""
    # A plan for any values would read a day's rows for a rare type as for a common one.
    session.execute(sa.text("set local plan_cache_mode = force_custom_plan"))


def in_scope(passport: Passport, column: sa.ColumnElement[str], merchant_id: str | None = None) -> Conditions:
    """Return the conditions that leave the merchant that is asked for, of those that the caller sees."""
    conditions: Conditions = []
    merchants = passport.merchant_filter()
    if merchants is not None:
        conditions.append(column.in_(merchants))
    if merchant_id is not None:
        conditions.append(column == merchant_id)
    return conditions
