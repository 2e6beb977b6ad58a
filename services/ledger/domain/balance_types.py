"""The registry of balance types: the one place that knows codes, signs, order numbers and counter-accounts.

Source: FEATURES.md "Balance types". The gaps in the numbering (234, 336 …) are reserved.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from shared.contracts.ledger import BalanceTypeView, UnknownBalanceType

CODE_DIGITS_MAX: Final = 4  # of a smallint


class Sign(Enum):
    """Which amounts a type takes. EITHER refuses zero."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    ZERO = "zero"
    ZERO_OR_NEGATIVE = "zero_or_negative"
    EITHER = "either"

    def takes(self, amount_minor: int) -> bool:
        """Return whether an amount has this sign."""
        if self is Sign.POSITIVE:
            return amount_minor > 0
        if self is Sign.NEGATIVE:
            return amount_minor < 0
        if self is Sign.ZERO:
            return amount_minor == 0
        if self is Sign.ZERO_OR_NEGATIVE:
            return amount_minor <= 0
        return amount_minor != 0


class OrderNumber(Enum):
    """Whether a change of a type names an order."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class BalanceType:
    """What one code means.

    counter_account: the system account of the other leg; None for a memo entry, which moves nothing.
    is_by_channel: the counter-account is one a channel.
    is_admin: needs `ledger:admin` and a reason.
    is_reserved: posted by the platform's own acts only, and by nobody who names the code.
    """

    code: int
    group: str
    name: str
    sign: Sign
    order_number: OrderNumber
    counter_account: str | None
    is_by_channel: bool = False
    is_admin: bool = False
    is_reserved: bool = False

    def counter_account_for(self, channel: str | None) -> str | None:
        """Return the name of the system account that the other leg goes to."""
        if self.is_by_channel and channel:
            return f"{self.counter_account}:{channel}"
        return self.counter_account

    def view(self) -> BalanceTypeView:
        """Return the type as others know it."""
        return {
            "code": self.code,
            "name": self.name,
            "group": self.group,
            "sign": self.sign.value,
            "order_no": self.order_number.value,
            "is_admin": self.is_admin,
        }


_RESET = "Traffic Reset"
_MONEY = "Recharge/Withdrawal"
_PURCHASE = "Purchase"
_ADJUSTMENT = "Adjustment"
_PLATFORM = "Platform"
_REQUIRED, _OPTIONAL, _NONE = OrderNumber.REQUIRED, OrderNumber.OPTIONAL, OrderNumber.NONE

BALANCE_TYPES: Final[dict[int, BalanceType]] = {
    t.code: t
    for t in (
        BalanceType(231, _RESET, "Auto Reset", Sign.ZERO, _NONE, None),
        BalanceType(232, _RESET, "Advance Reset", Sign.ZERO_OR_NEGATIVE, _OPTIONAL, "revenue:resets"),
        BalanceType(233, _RESET, "Paid Reset", Sign.ZERO_OR_NEGATIVE, _REQUIRED, "revenue:resets"),
        BalanceType(321, _MONEY, "Recharge", Sign.POSITIVE, _REQUIRED, "channel_clearing", is_by_channel=True),
        BalanceType(322, _MONEY, "Withdraw", Sign.NEGATIVE, _REQUIRED, "payout_clearing"),
        BalanceType(323, _MONEY, "Payment", Sign.NEGATIVE, _REQUIRED, "revenue:orders"),
        BalanceType(324, _MONEY, "Refund", Sign.POSITIVE, _REQUIRED, "revenue:refunds"),
        BalanceType(325, _MONEY, "Reward", Sign.POSITIVE, _OPTIONAL, "expense:rewards"),
        BalanceType(326, _MONEY, "Admin Adjust", Sign.EITHER, _OPTIONAL, "adjustments", is_admin=True),
        BalanceType(331, _PURCHASE, "Purchase", Sign.NEGATIVE, _REQUIRED, "revenue:plans"),
        BalanceType(332, _PURCHASE, "Renewal", Sign.NEGATIVE, _REQUIRED, "revenue:plans"),
        BalanceType(333, _PURCHASE, "Refund", Sign.POSITIVE, _REQUIRED, "revenue:refunds"),
        BalanceType(334, _PURCHASE, "Withdraw", Sign.NEGATIVE, _OPTIONAL, "payout_clearing"),
        BalanceType(335, _PURCHASE, "Admin Adjust", Sign.EITHER, _OPTIONAL, "adjustments", is_admin=True),
        BalanceType(341, _ADJUSTMENT, "Increase", Sign.POSITIVE, _OPTIONAL, "adjustments", is_admin=True),
        BalanceType(342, _ADJUSTMENT, "Reduce", Sign.NEGATIVE, _OPTIONAL, "adjustments", is_admin=True),
        # Two entries each, of the merchant's account and of the card's, which cancel out in the system account.
        BalanceType(511, _PLATFORM, "Card Top-up", Sign.EITHER, _NONE, "card_transfers", is_reserved=True),
        BalanceType(512, _PLATFORM, "Card Withdrawal", Sign.EITHER, _NONE, "card_transfers", is_reserved=True),
        BalanceType(521, _PLATFORM, "Fee charged", Sign.NEGATIVE, _REQUIRED, "revenue:fees", is_reserved=True),
    )
}


def label(code: int) -> tuple[str, str]:
    """Return the name and group of a code; one that an old row bears and nobody knows is `Unknown (n)`."""
    known = BALANCE_TYPES.get(code)
    return (known.name, known.group) if known else (f"Unknown ({code})", "Unknown")


def codes_of(*, types: Sequence[str | int], groups: Sequence[str]) -> list[int] | None:
    """Return the codes that a filter leaves, or None for all of them.

    types: codes, names ("Admin Adjust" is 326 and 335) or groups. A code that nobody knows is kept: old rows may
    bear it.
    groups: narrow the types further.
    Raises: UnknownBalanceType for a word that is neither a name nor a group.
    """
    if not (types or groups):
        return None
    codes = {code for word in types for code in _codes_of_word(word, "type")} if types else set(BALANCE_TYPES)
    if groups:
        codes &= {code for group in groups for code in _codes_of_word(group, "group")}
    return sorted(codes)


def _codes_of_word(word: str | int, field: str) -> set[int]:
    text = str(word)
    if field == "type" and text.isascii() and text.isdecimal() and len(text) <= CODE_DIGITS_MAX:
        return {int(text)}
    found = {t.code for t in BALANCE_TYPES.values() if word == t.group or (field == "type" and word == t.name)}
    if not found:
        raise UnknownBalanceType.of_field(field, f"There is no balance {field} {text[:64]!r}.")
    return found
