"""What a balance log is filtered by, checked before it becomes SQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from services.ledger.domain.balance_types import codes_of
from shared.errors import InvalidRequest
from shared.money import BEYOND_ISO_4217, fraction_digits, parse_minor

# Amounts of a filter may be of any currency, so they are read with as many digits as any has.
_FINEST_CURRENCY = max(BEYOND_ISO_4217, key=BEYOND_ISO_4217.__getitem__)


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
        digits = fraction_digits(currency)
        least = None if self.min_amount is None else self.min_amount.scaleb(digits)
        greatest = None if self.max_amount is None else self.max_amount.scaleb(digits)
        return (
            None if least is None else int(least.to_integral_value(ROUND_CEILING)),
            None if greatest is None else int(greatest.to_integral_value(ROUND_FLOOR)),
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
    try:
        minor = parse_minor(text, _FINEST_CURRENCY)
    except InvalidRequest:
        minor = -1
    if minor < 0:
        raise InvalidRequest.of_field(name, 'Must be a decimal string such as "12.50", not negative.')
    return Decimal(minor).scaleb(-fraction_digits(_FINEST_CURRENCY))


def whole_hours(start: datetime, end: datetime) -> tuple[datetime, datetime] | None:
    """Return the longest run of whole hours within a range, or None where there is none."""
    first = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if first < start:
        first += timedelta(hours=1)
    last = end.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return (first, last) if first < last else None
