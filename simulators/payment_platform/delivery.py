"""Callbacks as the platform sends them: signed, delivered again until they are taken, and with faults where ordered."""

import itertools
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import urllib3
from standardwebhooks import Webhook

from simulators.payment_platform.faults import Fault
from simulators.payment_platform.state import Payment
from simulators.payment_platform.stripe import STRIPE_ACCOUNT, event_of, sign_event

ATTEMPTS_MAX = 6
FIRST_PAUSE_SECONDS = 0.2
PAUSE_SECONDS_MAX = 2.0
TIMEOUT_SECONDS = 15


def sign(secret: str, message_id: str, body: bytes) -> dict[str, str]:
    """Return the headers that sign a message per Standard Webhooks."""
    now = datetime.now(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, now, body.decode()),
    }


@dataclass
class Deliveries:
    """What deliveries came to: how many messages, each attempt's status (0 is no answer), the last word of each."""

    messages: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON primitives."""
        return {"messages": self.messages, "statuses": dict(self.statuses), "outcomes": dict(self.outcomes)}


class Courier:
    """Delivers callbacks. Safe for several threads at once."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._numbers = itertools.count(1)
        self._run = secrets.token_hex(4)

    def deliver(
        self,
        payments: Sequence[Payment],
        url_of: Callable[[str], str],
        *,
        times: int,
        at_once: int,
        is_same_message: bool,
        faults_of: Callable[[str], dict[str, Fault]],
    ) -> Deliveries:
        """Deliver a callback of each payment so many times, so many at once, and return when that is done.

        is_same_message: whether the copies are one message again and again, or messages of their own.
        """
        work: list[tuple[Payment, str, dict[str, Fault]]] = []
        for payment in payments:
            faults = faults_of(payment.account)
            copies = faults["duplicate"].copies if "duplicate" in faults else times
            message_id = self._new_id()
            for _ in range(copies):
                is_one = is_same_message or "duplicate" in faults
                work.append((payment, message_id if is_one else self._new_id(), faults))
        found = Deliveries(messages=len(work))
        http = urllib3.PoolManager(maxsize=max(at_once, 1), block=True, retries=False, timeout=TIMEOUT_SECONDS)
        with ThreadPoolExecutor(max(at_once, 1)) as pool, http:
            for attempts, outcome in pool.map(lambda item: self._send_all(http, url_of, *item), work):
                found.statuses.update(str(status) for status in attempts)
                found.outcomes[outcome] += 1
        return found

    def _new_id(self) -> str:
        return f"msg_{self._run}_{next(self._numbers)}"

    def _send_all(
        self, http: urllib3.PoolManager, url_of: Callable[[str], str], payment: Payment, message_id: str,
        faults: dict[str, Fault],
    ) -> tuple[list[int], str]:  # fmt: skip
        url = url_of(payment.account)
        if "drop" in faults:
            return [], "dropped"
        if "delay" in faults:
            time.sleep(faults["delay"].delay_seconds)
        said = payment
        if "wrong_amount" in faults:
            said = replace(said, amount=f"{said.amount}1" if "." not in said.amount else f"9{said.amount}")
        attempts, outcome = self._send(http, url, message_id, said, is_forged="bad_signature" in faults)
        if "out_of_order" in faults:
            earlier = datetime.fromisoformat(payment.time) - timedelta(minutes=1)
            older = replace(said, status="pending", time=earlier.isoformat().replace("+00:00", "Z"))
            attempts += self._send(http, url, self._new_id(), older, is_forged=False)[0]
        return attempts, outcome

    def _send(
        self, http: urllib3.PoolManager, url: str, message_id: str, said: Payment, *, is_forged: bool
    ) -> tuple[list[int], str]:
        is_stripes = said.account == STRIPE_ACCOUNT
        body = event_of(said, message_id) if is_stripes else orjson.dumps(said.content())
        attempts: list[int] = []
        pause = FIRST_PAUSE_SECONDS
        for _ in range(ATTEMPTS_MAX):
            signature = sign_event(self._secret, body) if is_stripes else sign(self._secret, message_id, body)
            if is_forged:
                signature = {name: value[:-4] + "AAAA" for name, value in signature.items()}
            headers = signature | {"Content-Type": "application/json"}
            try:
                answer = http.request("POST", url, body=body, headers=headers, redirect=False)
            except urllib3.exceptions.HTTPError:
                attempts.append(0)
            else:
                attempts.append(answer.status)
                if answer.status == 200:
                    return attempts, str(answer.json()["outcome"])
                if answer.status in (400, 401, 413, 422):  # delivered again, it would be refused again
                    return attempts, "refused"
            time.sleep(pause)
            pause = min(pause * 2, PAUSE_SECONDS_MAX)
        return attempts, "given_up"
