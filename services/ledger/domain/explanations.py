"""Which rule a refusal stands for, and what a fee was before it was rounded."""

from decimal import Decimal
from typing import Final

from shared.contracts.ledger import (
    BalanceTooLarge,
    BalanceTypeReserved,
    InsufficientBalance,
    LimitExceeded,
    OrderNumberNotAllowed,
    OrderNumberRequired,
    OrderPostedBefore,
    ReasonRequired,
    RefundedThroughOrder,
    RefundTooLarge,
    SettledThroughOrder,
    UnknownBalanceType,
    WrongSign,
)
from shared.contracts.users import MerchantNotFound
from shared.errors import InvalidRequest, NotFound, PermissionDenied, ServiceError
from shared.money import InvalidMoney, fraction_digits

# In the order in which they are looked at. `state` is whatever else a present state does not allow.
RULES: Final = (
    "shape", "type", "amount", "sign", "order_no", "permission", "reason", "merchant", "order", "balance", "limit",
    "state",
)  # fmt: skip
MET: Final = {
    "shape": "Every field is known and well-formed.",
    "type": "The type is one that may be posted.",
    "amount": "The amount is one of the currency.",
    "sign": "The type takes this sign.",
    "order_no": "The type's order number is there, or there is none.",
    "permission": "You have the permission that the type needs.",
    "reason": "The type's reason is there, or it needs none.",
    "merchant": "The merchant is one of yours.",
    "order": "It does not do past an order what the order's own acts do.",
    "balance": "What is available covers it.",
}
_RULE_OF: Final[dict[type[ServiceError], str]] = {
    UnknownBalanceType: "type",
    BalanceTypeReserved: "type",
    InvalidMoney: "amount",
    WrongSign: "sign",
    OrderNumberRequired: "order_no",
    OrderNumberNotAllowed: "order_no",
    PermissionDenied: "permission",
    ReasonRequired: "reason",
    MerchantNotFound: "merchant",
    RefundedThroughOrder: "order",
    RefundTooLarge: "order",
    SettledThroughOrder: "order",
    OrderPostedBefore: "order",
    InsufficientBalance: "balance",
    BalanceTooLarge: "balance",
    LimitExceeded: "limit",
}


def rule_of(refusal: ServiceError) -> str:
    """Return the rule by which something was refused."""
    for known in type(refusal).__mro__:
        if known in _RULE_OF:
            return _RULE_OF[known]
    if isinstance(refusal, InvalidRequest):
        return "shape"
    return "merchant" if isinstance(refusal, NotFound) else "state"


def exact_fee(amount: int, percent: Decimal, currency: str) -> str:
    """Return a fee before it is rounded, in the currency's units."""
    exact = (amount * percent / 100).scaleb(-fraction_digits(currency))
    return f"{exact.normalize():f}" if exact else "0"
