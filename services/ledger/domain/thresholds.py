"""When a change counts as large: a decimal string, compared in each currency's own minor units."""

from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal

from shared.money import fraction_digits


@dataclass(frozen=True, slots=True)
class Threshold:
    """The parameter `ledger.large_change_threshold`, such as "10000.00"."""

    text: str
    _minor: dict[str, int] = field(default_factory=dict, compare=False)

    def minor(self, currency: str) -> int:
        """Return the least amount of minor units that is large. A fraction finer than the currency's is rounded up."""
        known = self._minor.get(currency)
        if known is None:
            exact = Decimal(self.text).scaleb(fraction_digits(currency))
            known = self._minor[currency] = int(exact.to_integral_value(ROUND_CEILING))
        return known

    def is_reached(self, amount_minor: int, currency: str) -> bool:
        """Return whether an amount is large, whatever its sign."""
        return abs(amount_minor) >= self.minor(currency)
