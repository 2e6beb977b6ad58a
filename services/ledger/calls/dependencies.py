"""What every call of the ledger may use of its process."""

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy.orm import Session

from services.ledger.domain.filters import LogFilter
from services.ledger.domain.thresholds import Threshold
from services.ledger.usecases import postings
from shared.copies import Merchants, Parameters
from shared.database import Database


class LedgerDependencies:
    """The ledger's database, and its copies of what others own."""

    database = Database()
    parameters = Parameters()
    merchants = Merchants()

    def run(self, work: Callable[[Session], Any]) -> Any:
        """Do work in a transaction."""
        return self.database.run(work)

    def wake_relay(self) -> None:
        """Say that there are events to carry."""
        self.database.relay.wake()

    def ensure_merchants(self, merchant_ids: Iterable[str]) -> None:
        """Make sure that merchants exist. Raises: MerchantNotFound."""
        self.merchants.ensure(merchant_ids)

    def threshold(self) -> Threshold:
        """Return the amount from which a change is a large one."""
        return Threshold(str(self.parameters.get("ledger.large_change_threshold")))

    def fee_percent(self) -> str:
        """Return the rate, in percent, of orders whose channel has none of its own."""
        return str(self.parameters.get("ledger.order_fee_percent"))

    def zone_name(self) -> str:
        """Return the time zone whose days are the platform's."""
        return str(self.parameters.get("system.timezone"))

    def log_filter(
        self,
        *,
        date: str | None = None,
        from_time: str | None = None,
        to_time: str | None = None,
        type: list[str | int] | None = None,
        group: list[str] | None = None,
        user_id: str | None = None,
        holder_type: str | None = None,
        order_no: str | None = None,
        merchant_id: str | None = None,
        currency: str | None = None,
        min_amount: str | None = None,
        max_amount: str | None = None,
    ) -> LogFilter:
        """Return the filter that a client describes. Raises: InvalidRequest."""
        return postings.log_filter(
            zone_name=self.zone_name(),
            date_text=date,
            from_time=from_time,
            to_time=to_time,
            types=type or [],
            groups=group or [],
            user_id=user_id,
            holder_type=holder_type,
            order_no=order_no,
            merchant_id=merchant_id,
            currency=currency,
            min_amount=min_amount,
            max_amount=max_amount,
        )
