"""What a balance log is filtered by, checked before it becomes SQL."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final

from services.ledger.domain.balance_types import codes_of
from shared.errors import InvalidRequest
from shared.money import AMOUNT_MINOR_MAX, fraction_digits

QUARTER: Final = timedelta(minutes=15)

# Amounts of a filter may be of any currency: as many digits as any has, and as large as the largest of any.
_AMOUNT = re.compile(r"[+-]?(0|[1-9][0-9]{0,18})(\.[0-9]{1,6})?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """Which rows of the balance log are meant. Times are half open; `codes` None is every type."""

    start: datetime
    end: datetime
    user_id: str | None = None
    holder_type: str | None = None
    merchant_id: str | None = None
    currency: str | None = None
    order_no: str | None = None
    codes: list[int] | None = None
    min_amount: Decimal | None = None
    max_amount: Decimal | None = None

    @property
    def is_rolled_up(self) -> bool:
        """Return whether the hourly totals know the sums of these rows."""
        return all(
            value is None for value in (self.user_id, self.holder_type, self.order_no, self.min_amount, self.max_amount)
        )

    def amount_bounds(self, currency: str) -> tuple[int | None, int | None]:
        """Return the least and the greatest absolute amount in a currency's minor units."""
        return (
            None if self.min_amount is None else minor_bound(self.min_amount, currency, ROUND_CEILING),
            None if self.max_amount is None else minor_bound(self.max_amount, currency, ROUND_FLOOR),
        )


def check_filter(
    *,
    start: datetime,
    end: datetime,
    types: Sequence[str | int],
    groups: Sequence[str],
    min_amount: str | None,
    max_amount: str | None,
    **exact: str | None,
) -> LogFilter:
    """Return the filter that a client's words describe.

    types: codes, names or groups; a row of any of them is meant.
    exact: `user_id`, `holder_type`, `merchant_id`, `currency`, `order_no`.
    Raises, in order: UnknownBalanceType, InvalidRequest.
    """
    return LogFilter(
        start=start,
        end=end,
        codes=codes_of(types=types, groups=groups),
        min_amount=amount_of_any_currency("min_amount", min_amount),
        max_amount=amount_of_any_currency("max_amount", max_amount),
        **exact,
    )


def amount_of_any_currency(name: str, text: str | None) -> Decimal | None:
    """Return the amount that a filter names, whatever currency it will be compared in. Raises: InvalidRequest."""
    if text is None:
        return None
    if not _AMOUNT.fullmatch(text) or Decimal(text) < 0:
        raise InvalidRequest.of_field(name, 'Must be a decimal string such as "12.50", not negative.')
    return Decimal(text)


def minor_bound(amount: Decimal, currency: str, rounding: str) -> int:
    """Return an amount of a filter in a currency's minor units; at most what a column can hold, which no amount is."""
    return min(int(amount.scaleb(fraction_digits(currency)).to_integral_value(rounding)), AMOUNT_MINOR_MAX)


def whole_quarters(start: datetime, end: datetime) -> tuple[datetime, datetime]:
    """Return a range without what it has of quarters of an hour that it does not have wholly.

    Every day of every zone begins with a quarter.
    """
    return start + (_begun(start) - start) % QUARTER, _begun(end)


def _begun(instant: datetime) -> datetime:
    """Return when the quarter of an hour began that an instant is in."""
    at = instant.astimezone(UTC)
    return at.replace(minute=at.minute // 15 * 15, second=0, microsecond=0)


def whole_hours(start: datetime, end: datetime) -> tuple[datetime, datetime] | None:
    """Return the longest run of whole hours within a range, or None where there is none."""
    first = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if first < start:
        first += timedelta(hours=1)
    last = end.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return (first, last) if first < last else None
