"""The platform as a running server, and its control API as methods."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import requests

from simulators.payment_platform.app import create_app
from simulators.serving import Control, Serving

SIMULATED_SECRET = "whsec_c2ltdWxhdGVkLXBheW1lbnQtcGxhdGZvcm0="  # noqa: S105  # of tests, and of nobody's money


class PlatformClient(Control):
    """The control API of a platform."""

    timeout_seconds = 120

    def base_url(self, account: str) -> str:
        """Return where an account is asked: a channel's `base_url`."""
        return f"{self.url}/{account}"

    def make_payment(self, account: str, order_no: str, amount: str, **fields: Any) -> dict[str, Any]:
        """Make a payment in CNY, a success unless fields say otherwise. Returns: what the platform says of it."""
        body = {"account": account, "order_no": order_no, "amount": amount, "currency": "CNY", **fields}
        made: dict[str, Any] = self._send("POST", "payments", body).json()
        return made

    def make_payments(self, payments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Make many payments."""
        items: list[dict[str, Any]] = self._send("POST", "payments", list(payments)).json()["items"]
        return items

    def change_payment(self, account: str, upstream_ref: str, **fields: Any) -> dict[str, Any]:
        """Let a payment come into another status, or be otherwise different."""
        changed: dict[str, Any] = self._send("PATCH", f"payments/{account}/{upstream_ref}", fields).json()
        return changed

    def payments(self, account: str) -> list[dict[str, Any]]:
        """Return an account's payments."""
        items: list[dict[str, Any]] = self._send("GET", "payments", account=account).json()["items"]
        return items

    def send_callbacks_to(self, account: str, url: str) -> None:
        """Say where an account's callbacks go."""
        self._send("PUT", f"callbacks/{account}", {"url": url})

    def deliver(self, account: str, **how: Any) -> dict[str, Any]:
        """Deliver callbacks; returns when they are delivered, with counts of statuses and outcomes."""
        found: dict[str, Any] = self._send("POST", "deliver", {"account": account, **how}).json()
        return found

    def plant(self, **world: Any) -> dict[str, Any]:
        """Make weeks of payments with mismatches, see `planting.make_plan`. Returns: `orders` and `planted`."""
        plan: dict[str, Any] = self._send("POST", "plant", world).json()
        return plan

    def statement(self, account: str, day: str, file_format: str = "csv", *, zone: str = "UTC") -> bytes:
        """Download a day of an account."""
        url = f"{self.url}/{account}/statements/{day}.{file_format}"
        answer = requests.get(url, params={"zone": zone}, timeout=self.timeout_seconds)
        answer.raise_for_status()
        return answer.content

    def order_fault(self, kind: str, target: str, **fields: Any) -> None:
        """Order a fault, see `faults.Fault`."""
        self._send("POST", "faults", {"kind": kind, "target": target, **fields})


class RunningPlatform(PlatformClient, Serving):
    """A platform served by threads of this process."""

    def __init__(self, port: int, secret: str, host: str) -> None:
        Serving.__init__(self, create_app(secret), host, port)
        PlatformClient.__init__(self, f"http://{self.place}")
        self.secret = secret


def start_platform(port: int = 0, secret: str = SIMULATED_SECRET, *, host: str = "127.0.0.1") -> RunningPlatform:
    """Serve a platform; port 0 takes a free one."""
    return RunningPlatform(port, secret, host)


@contextmanager
def running_platform(port: int = 0, secret: str = SIMULATED_SECRET) -> Iterator[RunningPlatform]:
    """Serve a platform for the length of a block."""
    platform = start_platform(port, secret)
    try:
        yield platform
    finally:
        platform.stop()
