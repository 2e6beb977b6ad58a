"""Closes the demonstration's books: the platforms' statements come in, days are reconciled, mismatches decided on."""

import csv
import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import partial
from itertools import groupby
from typing import Any, Final
from zoneinfo import ZoneInfo

from shared.times import rfc3339
from simulators.demo.orders import once
from simulators.demo.plan import (
    CALLS_BACK,
    CHANNELS,
    CLOSED_DAYS,
    DAYS,
    Channel,
    PlannedOrder,
    Plant,
    Record,
    records_of,
    subject_of,
)
from simulators.gateway_client import GatewayClient
from simulators.payment_platform.server import PlatformClient

AT_ONCE: Final = 4
FEE_OF_PLATFORMS: Final = Decimal("0.006")
FIELDS: Final = ("upstream_ref", "order_no", "amount", "fee", "currency", "status", "time")
RECONCILE_REASON, CLOSE_REASON = "Checked by hand.", "Everything of the day is settled."
REVERSE_REASON: Final = "It was another customer's coupon."


def register_channels(client: GatewayClient, platform: PlatformClient | None, secret: str) -> None:
    """Register the channels that lack; the one that calls back is bound to the simulated platform.

    secret: by which that platform signs.
    """
    known = {channel["code"] for channel in client.items("/channels")}
    for channel in CHANNELS:
        if channel.code in known:
            continue
        body = {"code": channel.code, "name": channel.name, "kind": "statement", "config": channel.config}
        if platform and channel.code == CALLS_BACK:
            said = {"base_url": platform.base_url(channel.code), "query_secret": secret, "callback_secrets": [secret]}
            body |= {"kind": "http", "config": {**channel.config, **said}}
        client.post("/channels", body)
    if platform:
        platform.send_callbacks_to(CALLS_BACK, f"{client.url}/api/v1/channels/{CALLS_BACK}/callbacks")


def upload_statements(client: GatewayClient, orders: Iterable[PlannedOrder], zone_name: str) -> None:
    """Upload what the platforms say of these orders: a file of each channel for each week."""
    records = [record for order in orders for record in records_of(order)]
    for channel in CHANNELS:
        of_channel = [record for record in records if record.channel == channel.code]
        weeks = groupby(of_channel, key=lambda record: record.at.astimezone(ZoneInfo(zone_name)).isocalendar()[:2])
        for (year, week), of_week in weeks:
            content = statement(channel, of_week).encode()
            name = {"filename": f"{channel.code}-{year}-W{week:02}.csv"}
            path, headers = f"/channels/{channel.code}/statements", {"Content-Type": "text/csv"}
            sending = partial(client.upload, path, content, headers=headers, **name)
            once(sending, "statement_already_imported")


def statement(channel: Channel, records: Iterable[Record]) -> str:
    """Return records as a channel's platform writes them."""
    file = io.StringIO()
    columns, config = channel.config.get("columns", {}), channel.config
    fields = [field for field in FIELDS if field != "currency" or "currency" not in config]
    writer = csv.writer(file, delimiter=config.get("delimiter", ","), lineterminator="\n")
    writer.writerow([columns.get(field, field) for field in fields])
    writer.writerows([_cell(config, record, field) for field in fields] for record in records)
    return file.getvalue()


def _cell(config: dict[str, Any], record: Record, field: str) -> str:
    if field == "status":
        words = {ours: theirs for theirs, ours in config.get("statuses", {}).items()}
        return str(words.get(record.status, record.status))
    if field == "time":
        form = config.get("date_format")
        return record.at.astimezone(ZoneInfo(config["timezone"])).strftime(form) if form else rfc3339(record.at)
    if field == "fee":
        fee = (Decimal(record.amount) * FEE_OF_PLATFORMS).quantize(Decimal("0.01"), ROUND_HALF_UP)
        return str(fee).replace(".", str(config.get("decimal_sign", ".")))
    if field == "amount":
        return record.amount.replace(".", str(config.get("decimal_sign", ".")))
    return str(getattr(record, field))


def reconcile(client: GatewayClient, days: Iterable[date]) -> None:
    """Reconcile these days of all channels."""
    todo = [(channel.code, day) for day in days for channel in CHANNELS]
    shares = [todo[start::AT_ONCE] for start in range(AT_ONCE)]

    def work(share: list[tuple[str, date]]) -> None:
        twin = client.twin()
        for code, day in share:
            body = {"channel": code, "date": day.isoformat()}
            once(partial(twin.post, "/reconciliations", body), "reconciliation_running")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(work, shares))


def decide(
    client: GatewayClient, proposer: GatewayClient, orders: Iterable[PlannedOrder], merchant_ids: dict[str, str]
) -> None:
    """Decide on the mismatches that were planted, as the plan says; others stay open.

    proposer: who proposes what waits for a second person, so that `client` may approve it.
    """
    planted = {subject_of(order): order for order in orders if order.plant}
    for mismatch in list(client.items("/mismatches", status="open")):
        order = planted.get(mismatch["order_no"])
        if order is None or order.plant is None:
            continue
        who = proposer if order.plant.act == "propose" else client
        _decide(who, mismatch["id"], order.plant, _whose(order, merchant_ids))


def _whose(order: PlannedOrder, merchant_ids: dict[str, str]) -> dict[str, str]:
    """Return whose order a correction is to make, where we have none."""
    if order.plant is None or order.plant.kind != "missing_local":
        return {}
    return {"merchant_id": merchant_ids[order.merchant_code], "user_id": order.user_id, "kind": order.kind}


def _decide(client: GatewayClient, mismatch_id: str, plant: Plant, whose: dict[str, str]) -> None:
    path, key, reason = f"/mismatches/{mismatch_id}", f"demo-{plant.act}-{mismatch_id}", {"reason": plant.reason}
    if plant.act in ("reconcile", "ignore"):
        client.post(f"{path}/{plant.act}", reason, key=key)
    elif plant.act in ("upstream", "reverse", "propose"):
        corrected = client.post(f"{path}/correct", {**reason, "to": "upstream", **whose}, key=key).body
        if plant.act == "reverse":
            correction_id = corrected["corrections"][0]["id"]
            client.post(f"/corrections/{correction_id}/reverse", {"reason": REVERSE_REASON}, key=f"{key}-back")
    elif plant.act == "local":
        client.post(f"{path}/correct", {**reason, "to": "local"}, key=key)


def past_days(last_day: date) -> Iterator[date]:
    """Yield the days of the demonstration, up to the last one."""
    for number in range(DAYS):
        yield last_day - timedelta(days=DAYS - 1 - number)


def close_days(client: GatewayClient, last_day: date) -> None:
    """Close the first days, in which nothing is open any more."""
    for day in list(past_days(last_day))[:CLOSED_DAYS]:
        body = {"date": day.isoformat(), "reason": CLOSE_REASON}
        once(partial(client.post, "/closed-days", body), "day_already_closed", "day_out_of_order")
