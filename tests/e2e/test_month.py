"""A month of three channels: everything that does not fit is found, and nothing else; corrected, the books close.

Orders are made and settled through the gateway while the ledger's clock stands in last month
(`operations/turned_clock.py`). The simulator is their payment platform; its statements are uploaded, the days
reconciled, checked, corrected and closed through the gateway too. By hand with `COUNTINGHOUSE_MONTH_ORDERS=100000`;
fewer orders otherwise, with the same number of days and channels.
"""

import os
import random
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
import requests

from operations.turned_clock import TurnedClock, clock_of
from shared.times import day_bounds, parse_rfc3339, rfc3339
from simulators.payment_platform import RunningPlatform, running_platform
from tests.e2e.conftest import Api, Platform, eventually

ORDERS: Final = int(os.environ.get("COUNTINGHOUSE_MONTH_ORDERS", "240"))
PLANTED: Final = max(12, ORDERS // 1000)  # 0.1 %, and each kind twice at least
DAYS, CHANNELS, MERCHANTS, USERS = 30, 3, 2, 10
ZONE: Final = "Asia/Shanghai"
AT_ONCE: Final = 6
TURN_LASTS: Final = timedelta(hours=1)  # a third of a day is made in less
SIGN_IN_SECONDS: Final = 300
TRIES_MAX: Final = 20
KINDS: Final = (
    "missing_local_update",
    "amount_mismatch",
    "status_mismatch",
    "missing_upstream",
    "missing_local",
    "duplicate_upstream",
)
FIGURES: Final = ("recharge", "withdrawal", "consumption", "refund", "fees", "balance_change")


class Staff:
    """The administrator, signed in anew before a token ends."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._api, self._since = platform.admin, time.monotonic()

    @property
    def api(self) -> Api:
        if time.monotonic() - self._since > SIGN_IN_SECONDS:
            self._api, self._since = Platform(self._platform.system).admin, time.monotonic()
        return self._api

    def post(self, path: str, body: Any, *, expected: int = 201) -> Any:
        key = secrets.token_hex(16)
        return self._answered(lambda: self.api.post(path, body, key=key), expected)

    def get(self, path: str, **query: Any) -> Any:
        return self._answered(lambda: self.api.get(path, **query), 200)

    def _answered(self, ask: Callable[[], requests.Response], *expected: int) -> Any:
        """Return what is answered; a database whose connections were just cut is asked again."""
        for _ in range(TRIES_MAX):
            answer = ask()
            if answer.status_code != 503:
                break
            time.sleep(float(answer.headers["Retry-After"]))
        assert answer.status_code in expected, (answer.request.url, answer.request.body, answer.text)
        return answer.json()

    def pages(self, path: str, **query: Any) -> Iterator[Any]:
        cursor: dict[str, str] = {}
        while True:
            page = self.get(path, limit=500, **query, **cursor)
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            cursor = {"cursor": page["next_cursor"]}

    def upload(self, channel: str, statement: bytes) -> None:
        url = f"{self.api.url}/api/v1/channels/{channel}/statements"
        headers = {"Content-Type": "text/csv"}
        sent = self._answered(lambda: self.api.http.post(url, data=statement, headers=headers, timeout=60), 201, 202)
        statement_id = sent["statement_id"]
        eventually(lambda: self.get(f"/statements/{statement_id}")["status"] == "imported", within_seconds=120)


class Month:
    """The orders of a month and what their platforms say, with what was planted to be found."""

    def __init__(self, staff: Staff, simulator: RunningPlatform, merchants: list[str], *, first: date) -> None:
        self.staff, self.simulator, self.merchants, self.first = staff, simulator, merchants, first
        self.rng = random.Random(30)
        self.channels = [f"month-{secrets.token_hex(3)}-{n}" for n in range(CHANNELS)]
        self.days = [first + timedelta(days=n) for n in range(DAYS)]
        self.records = 0
        self.planted: dict[tuple[str, str, str | None], dict[str, Any]] = {}
        places = [(n + 1) * ORDERS // (PLANTED + 1) for n in range(PLANTED)]
        self._plants = {place: KINDS[n % len(KINDS)] for n, place in enumerate(places)}

    def plan(self, number: int) -> dict[str, Any]:
        """Return an order to make, and how it goes."""
        kind = self.rng.choices(["recharge", "payment", "purchase", "withdraw"], [14, 3, 1, 2])[0]
        minor = self.rng.randint(5000, 9999) if kind == "recharge" else self.rng.randint(100, 500)
        plant = self._plants.get(number)
        end = (
            self.rng.choices(["settled", "failed", "refunded", "partly"], [92, 3, 2, 3])[0] if not plant else "settled"
        )
        return {
            "plant": plant,
            "end": "settled" if end in ("refunded", "partly") and kind in ("recharge", "withdraw") else end,
            "body": {
                "order_no": f"{self.channels[0]}-{number}",
                "merchant_id": self.rng.choice(self.merchants),
                "user_id": f"user-{self.rng.randrange(USERS)}",
                "kind": kind,
                "amount": f"{minor // 100}.{minor % 100:02}",
                "currency": "CNY",
                "channel": self.rng.choice(self.channels),
            },
            "seconds_off": self.rng.uniform(-2, 2),
        }

    def live(self, plan: dict[str, Any]) -> dict[str, Any]:
        """Take an order from its making to its end, through the gateway. Returns: the plan, with the order."""
        body, number = plan["body"], plan["body"]["order_no"]
        order = self.staff.post("/orders", body)
        if plan["end"] == "failed":
            order = self.staff.post(f"/orders/{number}/fail", {"reason": "Cancelled."}, expected=200)
        elif plan["plant"] != "missing_local_update":
            order = self.staff.post(f"/orders/{number}/settle", {"upstream_ref": f"u-{number}"}, expected=200)
        if plan["end"] in ("refunded", "partly"):
            part = {"amount": "0.50"} if plan["end"] == "partly" else {}
            order = self.staff.post(f"/orders/{number}/refund", {"reason": "Returned.", **part}, expected=200)
        return plan | {"order": order}

    def hear(self, lived: dict[str, Any], now: datetime) -> list[dict[str, str]]:
        """Return the platform's payments of an order, and note what is to be found because of them."""
        order, plant = lived["order"], lived["plant"]
        number = order["order_no"]
        settled_at = parse_rfc3339(order["settled_at"]) if order["settled_at"] else now
        statuses = {"settled": "success", "failed": "failed", "refunded": "refunded", "partly": "success"}
        record = {
            "upstream_ref": f"u-{number}",
            "order_no": number,
            "account": order["channel"],
            "amount": Decimal(order["amount"]),
            "currency": order["currency"],
            "status": statuses[lived["end"]],
            "at": settled_at + timedelta(seconds=lived["seconds_off"]),
        }
        said = [record]
        ref: str | None = record["upstream_ref"]
        if plant == "amount_mismatch":
            record["amount"] += 1
        elif plant == "status_mismatch":
            record["status"] = "failed"
        elif plant == "missing_upstream":
            said, ref = [], None
        elif plant == "missing_local":
            number, ref = f"strange-{number}", f"strange-{ref}"
            said.append(record | {"order_no": number, "upstream_ref": ref})
        elif plant == "duplicate_upstream":
            ref = f"again-{ref}"
            said.append(record | {"upstream_ref": ref, "at": record["at"] + timedelta(minutes=1)})
        self.records += len(said)
        if plant:
            self.planted[plant, number, ref] = order
        return [
            {name: str(value) for name, value in one.items() if name != "at"} | {"time": rfc3339(one["at"])}
            for one in said
        ]

    def upload_statement(self, channel: str, day: date) -> None:
        """Upload what the platform says of a day, unless it says nothing."""
        statement = self.simulator.statement(channel, day.isoformat(), zone=ZONE)
        if statement.count(b"\n") > 1:
            self.staff.upload(channel, statement)

    def mismatches(self) -> list[Any]:
        """Return all mismatches of the channels, from the gateway."""
        return [item for channel in self.channels for item in self.staff.pages("/mismatches", channel=channel)]


@pytest.fixture
def simulator() -> Iterator[RunningPlatform]:
    """The payment platforms of all channels, an account each."""
    with running_platform() as platform:
        yield platform


@pytest.fixture
def staff(platform: Platform) -> Iterator[Staff]:
    """The administrator, with days of Shanghai for as long as the test takes."""
    staff = Staff(platform)
    before = _set_zone(staff, ZONE)
    yield staff
    _set_zone(staff, before)


def _set_zone(staff: Staff, zone_name: str) -> str:
    """Set the zone. Returns: the one before."""
    parameter = staff.get("/settings/parameters/system.timezone")
    body = {"value": zone_name, "reason": "A month is tested.", "expected_version": parameter["version"]}
    assert staff.api.put("/settings/parameters/system.timezone", body).status_code == 200
    eventually(lambda: staff.get("/reconciliations/monthly")["timezone"] == zone_name)
    time.sleep(2)  # each instance of the ledger has heard of it
    return str(parameter["value"])


def live_through(month: Month, clock: TurnedClock) -> None:
    """Make and settle the month's orders, each day at its beginning, at noon, and towards midnight."""
    staff = month.staff
    clock.turn(datetime.combine(month.first, datetime.min.time(), ZoneInfo(ZONE)) - timedelta(hours=1))
    gifts = [
        {"merchant_id": m, "user_id": f"user-{n}", "type": 325, "amount": "900.00", "currency": "CNY"}
        for m in month.merchants
        for n in range(USERS)
    ]
    staff.post("/balance-changes/batch", {"changes": gifts}, expected=200)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for n, day in enumerate(month.days):
            start, end = day_bounds(day, ZONE)
            plans = [month.plan(number) for number in range(n * ORDERS // DAYS, (n + 1) * ORDERS // DAYS)]
            for part, at in enumerate((start + timedelta(seconds=1), start + timedelta(hours=12), end)):
                clock.turn(at - timedelta(seconds=2) if at == end else at)
                payments = [one for lived in pool.map(month.live, plans[part::3]) for one in month.hear(lived, at)]
                month.simulator.make_payments(payments)
            assert {row["sum"] for row in staff.get("/trial-balance")["items"]} == {"0"}


def each_day(month: Month, act: Callable[[str, date], Any]) -> list[Any]:
    """Do something for each channel and each day of the month, and for the days before and after, about midnight."""
    days = [month.first - timedelta(days=1), *month.days, month.days[-1] + timedelta(days=1)]
    return [act(channel, day) for channel in month.channels for day in days]


def reconcile(month: Month) -> list[Any]:
    """Reconcile all of the month."""
    return each_day(
        month,
        lambda channel, day: month.staff.post("/reconciliations", {"channel": channel, "date": day.isoformat()}),
    )


def correct_all(month: Month) -> None:
    """Correct every mismatch, in turn as the platform says and as we say, where there is a choice."""
    seen: dict[str, int] = {}
    for item in month.mismatches():
        seen[item["kind"]] = turn = seen.get(item["kind"], 0) + 1
        to = "local" if item["kind"] == "duplicate_upstream" or turn % 2 == 0 else "upstream"
        body: dict[str, Any] = {"reason": "The month is closed.", "to": to}
        if item["kind"] == "missing_local" and to == "upstream":
            body |= {"merchant_id": month.merchants[0], "user_id": "user-0", "kind": "recharge"}
        answer = month.staff.post(f"/mismatches/{item['id']}/correct", body, expected=200)
        assert answer["status"] == "corrected", answer


def check_the_books(month: Month) -> None:
    """See that every daily check is ok, the month is the sum of its days, and the ledger is proved."""
    staff = month.staff
    for day in month.days:
        daily = staff.get("/reconciliations/daily", date=day.isoformat())
        assert [item for item in daily["items"] if not item["ok"]] == []
        assert {item["name"] for item in daily["items"]} == {
            "recharge_total", "consumption_total", "large_changes", "refunds_complete",
        }  # fmt: skip
    monthly = staff.get("/reconciliations/monthly", month=f"{month.first:%Y-%m}")
    assert {item["channel"] for item in monthly["items"]} >= set(month.channels)
    for item in monthly["items"]:
        parts = [part for day in monthly["days"] for part in day["items"] if part["channel"] == item["channel"]]
        for name in FIGURES:
            assert Decimal(item[name]) == sum(Decimal(part[name]) for part in parts), (item, name)
    assert {row["sum"] for row in staff.get("/trial-balance")["items"]} == {"0"}
    run = staff.post("/tasks/balance_check/run", {}, expected=202)
    done = eventually(
        lambda: next(iter([r for r in [staff.get(f"/task-runs/{run['id']}")] if r["finished_at"]]), None),
        within_seconds=300,
    )
    assert (done["status"], done["result"]["broken"]) == ("succeeded", [])


def close(month: Month) -> None:
    """Close every day of the month, and see that it is what it was."""
    staff, name = month.staff, f"{month.first:%Y-%m}"
    before = staff.get("/reconciliations/monthly", month=name)
    for day in before["days"]:
        staff.post("/closed-days", {"date": day["date"], "reason": "Everything is corrected."})
    closed = staff.get("/reconciliations/monthly", month=name)
    assert (closed["is_closed"], closed["items"], closed["after_close"]) == (True, before["items"], [])


@pytest.mark.timeout(600 + ORDERS // 10)
def test_a_month_of_three_channels_is_reconciled_corrected_and_closed(
    platform: Platform, staff: Staff, simulator: RunningPlatform
) -> None:
    today = datetime.now(ZoneInfo(ZONE)).date()
    first = (today.replace(day=1) - timedelta(days=1)).replace(day=1)
    month = Month(staff, simulator, [platform.merchant() for _ in range(MERCHANTS)], first=first)
    for code in month.channels:
        staff.post("/channels", {"code": code, "name": code, "kind": "statement"})
    with clock_of(platform.system, turn_lasts=TURN_LASTS) as clock:
        clock.begin()
        live_through(month, clock)
    each_day(month, month.upload_statement)

    runs = reconcile(month)
    found = month.mismatches()
    assert {(m["kind"], m["order_no"], m["upstream_ref"]) for m in found} == month.planted.keys()
    assert {m["status"] for m in found} == {"open"}
    assert (len(found), sum(run["found"] for run in runs)) == (PLANTED, PLANTED)
    assert sum(run["records"] for run in runs) == month.records
    ids = {m["id"] for m in found}
    reconcile(month)
    assert {m["id"] for m in month.mismatches()} == ids

    correct_all(month)
    again = reconcile(month)
    assert [run for run in again if run["found"] or run["healed"] or run["expected"]] == []
    assert {m["status"] for m in month.mismatches()} == {"corrected"}
    check_the_books(month)
    close(month)
