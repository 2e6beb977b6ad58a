"""What the simulated platform knows: the payments of each account, and where its callbacks go."""

import itertools
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

STATUSES = ("pending", "success", "failed", "refunded")


def now_text() -> str:
    """Return this instant as RFC 3339."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True, kw_only=True)
class Payment:
    """A payment as its platform knows it. Amounts are decimal strings; `time` is when it came into its status."""

    account: str
    upstream_ref: str
    order_no: str | None
    amount: str
    currency: str
    status: str = "success"
    fee: str = "0"
    time: str = field(default_factory=now_text)

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status is one of {', '.join(STATUSES)}")

    def content(self) -> dict[str, Any]:
        """Return it as callbacks and answers say it."""
        return {name: value for name, value in asdict(self).items() if name != "account" and value is not None}


class Platform:
    """The payments of all accounts, in the order in which they were made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._payments: dict[tuple[str, str], Payment] = {}
        self._by_order: dict[tuple[str, str | None], list[str]] = {}
        self._numbers = itertools.count(1)
        self.callback_urls: dict[str, str] = {}

    def forget(self) -> None:
        """Forget everything."""
        with self._lock:
            self._payments.clear()
            self._by_order.clear()
            self.callback_urls.clear()

    def add(self, payments: Iterable[Payment]) -> None:
        """Take payments in; one whose number is known takes the place of the one before."""
        with self._lock:
            for payment in payments:
                key = (payment.account, payment.upstream_ref)
                if key not in self._payments:
                    self._by_order.setdefault((payment.account, payment.order_no), []).append(payment.upstream_ref)
                self._payments[key] = payment

    def make(self, **fields: Any) -> Payment:
        """Make a payment; without `upstream_ref` it gets a number."""
        payment = Payment(**{"upstream_ref": f"up{next(self._numbers):012}"} | fields)
        self.add([payment])
        return payment

    def change(self, account: str, upstream_ref: str, **fields: Any) -> Payment:
        """Let a payment come into another status, or be otherwise different. Raises: KeyError."""
        payment = replace(self.payment(account, upstream_ref), **{"time": now_text()} | fields)
        self.add([payment])
        return payment

    def payment(self, account: str, upstream_ref: str) -> Payment:
        """Return a payment. Raises: KeyError."""
        with self._lock:
            return self._payments[account, upstream_ref]

    def of_order(self, account: str, order_no: str) -> list[Payment]:
        """Return the payments of an order."""
        with self._lock:
            return [self._payments[account, ref] for ref in self._by_order.get((account, order_no), [])]

    def of_account(self, account: str | None) -> list[Payment]:
        """Return the payments of an account, or of all."""
        with self._lock:
            return [p for p in self._payments.values() if account is None or p.account == account]
