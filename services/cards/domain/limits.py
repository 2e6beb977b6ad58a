"""A card's limits: what may be put onto it by one top-up, in a day, in a month. A withdrawal is never limited.

A top-up counts from the moment that it is asked for until it is refused. A withdrawal gives its amount back to the
day's and the month's, down to nothing and no further: money of last month's makes no room beyond the limit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

from shared.contracts.cards import LimitsView
from shared.contracts.ledger import LimitExceeded
from shared.errors import InvalidRequest
from shared.money import InvalidMoney, format_minor, parse_minor

AMOUNT_MINOR_MAX: Final = 10**17
COUNT_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Usage:
    """What counts against a card's limits already."""

    day_amount: int = 0
    day_count: int = 0
    month_amount: int = 0


def usage_of(moves: Iterable[tuple[int, bool]]) -> Usage:
    """Return what a month's transfers come to.

    moves: in their order, the amount (negative for a withdrawal) and whether it is of today.
    """
    day = count = month = 0
    for amount, is_today in moves:
        month = max(month + amount, 0)
        if is_today:
            day = max(day + amount, 0)
            count += amount > 0
    return Usage(day, count, month)


@dataclass(frozen=True, slots=True)
class Limits:
    """A card's limits in minor units; None is no limit."""

    max_amount: int | None = None
    daily_amount: int | None = None
    daily_count: int | None = None
    monthly_amount: int | None = None

    @property
    def need_usage(self) -> bool:
        """Whether anything but the single top-up is limited."""
        return (self.daily_amount, self.daily_count, self.monthly_amount) != (None, None, None)

    def changed(self, wanted: Mapping[str, Any], *, currency: str) -> Self:
        """Return the limits with some of them put differently: a decimal string, for the count a number, None for none.

        Raises, in order: InvalidRequest for a limit that there is not or a count out of its bounds; InvalidMoney.
        """
        known = {f.name for f in fields(self)}
        if unknown := wanted.keys() - known:
            raise InvalidRequest("Unknown limit.", errors={f"limits.{name}": ["Unknown limit."] for name in unknown})
        values = {name: getattr(self, name) for name in known}
        values |= {name: _parsed(name, value, currency) for name, value in wanted.items()}
        return type(self)(**values)

    def view(self, currency: str) -> LimitsView:
        """Return the limits as others know them."""

        def text(minor: int | None) -> str | None:
            return None if minor is None else format_minor(minor, currency)

        return {
            "max_amount": text(self.max_amount),
            "daily_amount": text(self.daily_amount),
            "daily_count": self.daily_count,
            "monthly_amount": text(self.monthly_amount),
        }

    def check(self, amount: int, used: Usage, *, currency: str) -> None:
        """Refuse a top-up that a limit does not allow.

        Raises: LimitExceeded, with the first limit of: max_amount, daily_amount, daily_count, monthly_amount.
        """
        if self.max_amount is not None and amount > self.max_amount:
            raise _exceeded("max_amount", self.max_amount, 0, currency)
        if self.daily_amount is not None and used.day_amount + amount > self.daily_amount:
            raise _exceeded("daily_amount", self.daily_amount, used.day_amount, currency)
        if self.daily_count is not None and used.day_count + 1 > self.daily_count:
            raise LimitExceeded(
                f"The card's limit daily_count is {self.daily_count}, of which {used.day_count} are used.",
                limit="daily_count",
                allowed=self.daily_count,
                used=used.day_count,
            )
        if self.monthly_amount is not None and used.month_amount + amount > self.monthly_amount:
            raise _exceeded("monthly_amount", self.monthly_amount, used.month_amount, currency)


def _exceeded(limit: str, allowed: int, used: int, currency: str) -> LimitExceeded:
    allowed_text, used_text = format_minor(allowed, currency), format_minor(used, currency)
    of_which = "" if limit == "max_amount" else f", of which {used_text} is used"
    return LimitExceeded(
        f"The card's limit {limit} is {allowed_text} {currency}{of_which}.",
        limit=limit,
        currency=currency,
        allowed=allowed_text,
        used=used_text,
    )


def _parsed(name: str, value: Any, currency: str) -> int | None:
    if value is None:
        return None
    if name == "daily_count":
        if type(value) is not int or not 0 <= value <= COUNT_MAX:
            raise InvalidRequest.of_field("limits.daily_count", f"Must be a whole number from 0 to {COUNT_MAX}.")
        return value
    try:
        minor = parse_minor(value, currency)
    except InvalidMoney as error:
        raise InvalidMoney.of_field(f"limits.{name}", error.detail) from None
    if not 0 <= minor <= AMOUNT_MINOR_MAX:
        raise InvalidMoney.of_field(f"limits.{name}", "Must not be negative, nor too large.")
    return minor
